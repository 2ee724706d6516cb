"""Who manages which field: sets of fields, typed merge and comparison, managedFields, server-side apply."""
