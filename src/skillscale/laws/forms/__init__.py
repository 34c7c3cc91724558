"""Forms of a law: frozen values with a formula and its derivatives."""
