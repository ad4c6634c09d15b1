"""Masked latent optimisation and pivotal tuning (paper sections 3.2 and 3.3)."""
