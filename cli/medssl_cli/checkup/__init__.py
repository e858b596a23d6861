"""What `medssl doctor` looks at, one module per kind of thing."""
