"""Pseudonyms under a secret key, patients with several ids, and splits by patient. Imports `index`."""
