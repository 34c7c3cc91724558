"""Write laws as JSON and as Python that needs numpy alone; read them back."""
