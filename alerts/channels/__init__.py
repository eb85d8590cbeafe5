"""The ways to those who are told: one module per kind of receiver, behind one contract and one table of answers."""
