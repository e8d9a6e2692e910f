"""Training that resumes exactly: state, seeds, precision, loss terms, an encoder that is frozen at first."""
