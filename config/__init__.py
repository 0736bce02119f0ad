"""Settings, meters, plans, customers and entities, and the journal of their revisions."""
