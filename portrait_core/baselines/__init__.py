"""Other methods that animate a portrait, behind one interface, for comparison (paper section 4.1)."""
