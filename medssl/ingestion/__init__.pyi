from .archive_to_cohort import ingest as ingest
from .archive_to_nifti import convert as convert
from .explanation import (
    Explanation as Explanation,
)
from .explanation import (
    explain as explain,
)
from .one_scan import load_scan as load_scan
from .overview import draw_overview as draw_overview
from .report import IngestReport as IngestReport
from .settings import IngestSettings as IngestSettings
from .verify import (
    SeriesComparison as SeriesComparison,
)
from .verify import (
    verify_against_dcm2niix as verify_against_dcm2niix,
)
