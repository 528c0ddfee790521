"""The configuration: one small yaml per choice, and the schema that types them."""
