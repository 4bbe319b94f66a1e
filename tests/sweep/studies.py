"""What must be equal between two runs of the same experiment, to the last bit."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any


def snapshot(run_dir: Path) -> dict[str, Any]:
    """Return everything about a finished run that neither clock nor folder may change."""
    board = json.loads((run_dir / "leaderboard.json").read_text())
    connection = sqlite3.connect(run_dir / "study.db")
    try:
        study = {
            name: connection.execute(query).fetchall()
            for name, query in {
                "trials": "select number, state from trials order by number",
                "params": "select number, param_name, param_value from trial_params join trials using (trial_id) order by 1, 2",
                "values": "select number, objective, value from trial_values join trials using (trial_id) order by 1, 2",
                "rungs": "select number, step, intermediate_value from trial_intermediate_values join trials using (trial_id) order by 1, 2",
                "attrs": "select number, key, value_json from trial_user_attributes join trials using (trial_id) order by 1, 2",
            }.items()
        }
    finally:
        connection.close()
    weights = {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run_dir.rglob("*.safetensors"))
        if "checkpoints" not in path.parts
    }
    logs = {str(p.relative_to(run_dir)): p.read_text() for p in sorted(run_dir.glob("trials/*/metrics.jsonl"))}
    return {"rows": board["rows"], "best": board["best"], "study": study, "weights": weights, "logs": logs}
