"""Reads run folders and shows them: the MLflow mirror, and pages on which a reviewer decides.

The only package that knows MLflow; nothing else needs it installed. May import results (`downstream.comparison`), runs,
config and what lies below. Import from its files: `mirror.Mirror`, `sync.sync`, `review.write_review`,
`answer.record_answer`, `conclusion.conclusion`. None of them loads torch.
"""
