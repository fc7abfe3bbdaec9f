"""What the commands show: tables and progress for people, JSON for machines."""
