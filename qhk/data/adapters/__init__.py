"""One module per official format. ``ADAPTERS`` names them; ``qhk.data.datasets`` uses them."""

from qhk.data.adapters import (
    agiqa_3k,
    comparison_rows,
    csiq,
    degradation_rows,
    folder,
    kadid,
    koniq,
    live_wild,
    pipal,
    spaq,
    tid2013,
    video_folder,
)
from qhk.data.adapters.base import Adapter

ADAPTERS: dict[str, Adapter] = {
    "koniq": koniq.ADAPTER,
    "spaq": spaq.ADAPTER,
    "kadid": kadid.ADAPTER,
    "pipal": pipal.ADAPTER,
    "live_wild": live_wild.ADAPTER,
    "agiqa_3k": agiqa_3k.ADAPTER,
    "csiq": csiq.ADAPTER,
    "tid2013": tid2013.ADAPTER,
    "folder": folder.ADAPTER,
    "degradation_rows": degradation_rows.ADAPTER,
    "comparison_rows": comparison_rows.ADAPTER,
    "video_folder": video_folder.ADAPTER,
}
