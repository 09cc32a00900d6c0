"""What the accesses of a run say about each file: counts, bytes, order, repetition, latency.

Works on any `flak.events.EventSource`, live or recorded, and never knows which. Needs numpy, so import it only
where the figures are wanted. Every formula is in docs/patterns.md.
"""

from flak.analysis.files import FilePatterns, analyse
from flak.analysis.rows import FileRow

__all__ = ["FilePatterns", "FileRow", "analyse"]
