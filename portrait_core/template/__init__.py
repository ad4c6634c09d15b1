"""The expression template: retargeting, moving skin, mouth and eyes (paper section 3.2)."""
