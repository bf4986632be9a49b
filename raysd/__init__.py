"""raysd: which ingredient of an anomalous-sound detector helps, by how much, on which machines, and how sure are we?"""
