"""`kerasdl launch`: one training in several processes or on several machines. No framework."""
