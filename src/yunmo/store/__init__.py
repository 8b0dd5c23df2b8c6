"""What lasts: the workspace folder, metadata tables and migrations, artefacts, the event sink."""
