"""The law read at the target: what is minimised, where its minimum lies, how sure, and when to abstain."""
