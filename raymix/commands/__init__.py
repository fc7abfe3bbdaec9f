"""The commands of `raymix`, one file per subject; `raymix/cli.py` holds those of the main job."""
