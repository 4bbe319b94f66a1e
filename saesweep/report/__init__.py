"""The report of a run: one self-contained HTML page, a feature page of the winner, and PNG files."""

from saesweep.report.write import Report, write_report

__all__ = ["Report", "write_report"]
