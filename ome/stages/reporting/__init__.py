"""The report's page: what it shows, how it is judged and drawn."""
