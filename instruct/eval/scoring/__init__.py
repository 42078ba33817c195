"""Log-likelihoods of targets and options, metrics with standard errors, majority votes."""
