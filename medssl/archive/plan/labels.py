"""Label objects to the scans they label: by the series and slices they refer to."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from medssl.archive.dicom.label_record import LabelRecord, Structure, parse_label_record
from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.index.load_plan import LabelObject, StampedFile
from medssl.archive.labels.names import NameTable, name_table, numbered
from medssl.archive.rejection import Rejected
from medssl.archive.series.assemble import AssembledScan, LeftOut, PatientOf
from medssl.cohort.reasons import Flag, Reason

LABEL, IMAGE = "label:", "dicom:"


@dataclass(frozen=True)
class Attached:
    """What labels one scan, oldest object first."""

    objects: tuple[LabelObject, ...] = ()
    flags: tuple[Flag, ...] = ()


@dataclass
class LabelObjects:
    """The label objects of an index. links: series of images to series of label objects that refer to it.

    verdicts: by instance, what `attach` found: None where the object labels a scan, else why it labels none.
    """

    index: Index
    table: NameTable
    links: Mapping[str, Sequence[str]]
    values: Mapping[str, int]
    verdicts: dict[str, Rejected | None] = field(default_factory=dict)

    def attach(self, series: str, scans: Sequence[AssembledScan], whose: PatientOf) -> list[Attached]:
        """What labels each scan of a series of images. whose: what a scan and its labels must agree in, besides."""
        files = [file for key in self.links.get(series, ()) for file in files_of(self.index, key)]
        candidates: list[list[_Candidate]] = [[] for _ in scans]
        for file, label in _in_order(files):
            mine = [whose(scan.record) == whose(label.record) for scan in scans]
            labelled = [number for number, scan in enumerate(scans) if mine[number] and _refers(label, scan)]
            if not labelled:
                self._judge(label, Rejected(Reason.LABEL_WITHOUT_IMAGE, "its images are part of no scan"))
            for number in labelled:
                try:
                    candidates[number].append(self._candidate(file, label, scans[number]))
                except Rejected as rejected:
                    self._judge(label, rejected)
                    candidates[number].append(_Candidate(file, label, {}, partial=True))
        return [self._attached(ones) for ones in candidates]

    def left_out(self, series: str) -> list[LeftOut]:
        """Objects of a series of label objects that label no scan, one entry for each reason."""
        parts: dict[tuple[Reason, str], LeftOut] = {}
        absent = Rejected(Reason.LABEL_WITHOUT_IMAGE, "no series of images that it refers to is in the sources")
        for number, file in enumerate(files_of(self.index, series)):
            record = parse_label_record(file.record or "").record
            if (why := self.verdicts.get(record.instance, absent)) is not None:
                before = parts.get((why.reason, why.detail), LeftOut(why.reason, why.detail, (), record))
                parts[why.reason, why.detail] = replace(before, files=(*before.files, number))
        return [parts[key] for key in sorted(parts)]

    def _candidate(self, file: IndexedFile, label: LabelRecord, scan: AssembledScan) -> "_Candidate":
        """The labels of an object that may lie on a scan. Raises Rejected where there are none."""
        frame = scan.record.frame_of_reference
        fitting = [structure for structure in label.structures if _agree(structure.frame_of_reference, frame)]
        if not _agree(label.record.frame_of_reference, frame) and not label.is_structure_set:
            fitting = []
        if label.structures and not fitting:
            raise Rejected(Reason.LABEL_GRID, "its frame of reference is another than that of its images")
        labels = {structure.number: self.table.label(structure) for structure in fitting}
        named = {number: self.values[word] for number, word in sorted(labels.items()) if word}
        if not named:
            raise Rejected(Reason.LABEL_NAMES, f"no name of its {len(labels)} structures stands for a label")
        return _Candidate(file, label, named, partial=None in labels.values() or len(fitting) < len(label.structures))

    def _attached(self, candidates: "list[_Candidate]") -> Attached:
        """Each label from the newest object that holds it."""
        newest = {value: candidate.file.path for candidate in candidates for value in candidate.values.values()}
        objects, flags = [], list[Flag]()
        for candidate in candidates:
            values = tuple(
                (number, value) for number, value in candidate.values.items() if newest[value] == candidate.file.path
            )
            if values:
                self._judge(candidate.label, None)
                file = StampedFile.of(candidate.file.path, candidate.file.stamp)
                objects.append(LabelObject(file, structure_set=candidate.label.is_structure_set, values=values))
            elif candidate.values:
                self._judge(candidate.label, Rejected(Reason.LABEL_SUPERSEDED, "newer objects hold all its labels"))
        if sum(bool(candidate.values) for candidate in candidates) > 1:
            flags.append(Flag.F_LABELS_MERGED)
        if objects and any(candidate.partial for candidate in candidates):
            flags.append(Flag.F_LABEL_PART)
        if candidates and not objects:
            flags.append(Flag.F_LABEL_LEFT_OUT)
        return Attached(tuple(objects), tuple(flags))

    def _judge(self, label: LabelRecord, verdict: Rejected | None) -> None:
        """Keep the kindest verdict: used somewhere, else why not where its images are, else that they are nowhere."""
        before = self.verdicts.get(label.record.instance, verdict)
        if before is not None and (verdict is None or before.reason is Reason.LABEL_WITHOUT_IMAGE):
            before = verdict
        self.verdicts[label.record.instance] = before


@dataclass(frozen=True)
class _Candidate:
    """An object that refers to a scan. values: number of a structure to number of its label."""

    file: IndexedFile
    label: LabelRecord
    values: dict[int, int]
    partial: bool


def label_objects(index: Index, table: NameTable, dataset_names: Mapping[int, str], *, all_again: bool) -> LabelObjects:
    """The label objects of an index; what must be planned again because of them is marked as dirty.

    all_again: whether the table has changed. Raises DataError as `numbered` does.
    """
    dirty = set(index.dirty_series())
    keys = index.series_keys(LABEL) if dirty or all_again else []
    if not keys:
        return LabelObjects(index, table, {}, {})
    links: dict[str, set[str]] = {}
    structures: set[Structure] = set()
    for key, images, referring in _links(index, keys):
        links[key] = images
        structures |= referring
    before = dirty | (set(keys) if all_again else set())
    index.mark_dirty(_touched(links, before) - dirty)
    by_image: dict[str, list[str]] = defaultdict(list)
    for key in sorted(links):
        for image in links[key]:
            by_image[image].append(key)
    return LabelObjects(index, table, by_image, numbered(index, table, structures, dataset_names))


def files_of(index: Index, series: str) -> list[IndexedFile]:
    """Files of a series of label objects: those that are there, and those that are gone and of which no copy is there,
    because what was stored from them stays.
    """
    present, gone = list(index.files(series=series)), list(index.vanished_files(series=series))
    copied = {_instance(file) for file in present} if gone else set()
    return [*present, *(file for file in gone if _instance(file) not in copied)]


def _instance(file: IndexedFile) -> str:
    return parse_label_record(file.record or "").record.instance


def names_met(index: Index) -> list[tuple[str, str, int]]:
    """(name of a structure, its label or '', number of objects that have it), the commonest first.

    A structure without a name is listed by its codes. For people on the machine: the names are free text.
    """
    table, _ = name_table(index, None)
    labels: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for key in index.series_keys(LABEL):
        for file in files_of(index, key):
            for structure in parse_label_record(file.record or "").structures:
                name = " ".join(structure.name.split()) or " ".join(structure.codes)
                labels.setdefault(name, table.label(structure) or "")
                counts[name] += 1
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return [(name, labels[name], counts[name]) for name in ordered if name]


def _links(index: Index, keys: Sequence[str]) -> Iterator[tuple[str, set[str], set[Structure]]]:
    """(series of label objects, series of images it refers to, structures of objects whose images are there)."""
    by_uid: dict[str, list[str]] = defaultdict(list)
    for image in index.series_keys(IMAGE):
        by_uid[image.rsplit("/", 1)[-1]].append(image)
    for key in keys:
        images: set[str] = set()
        structures: set[Structure] = set()
        for file in files_of(index, key):
            label = parse_label_record(file.record or "")
            named = {image for uid in label.series for image in by_uid.get(uid, ())}
            if not label.series and label.instances:
                named = _by_instance(index, label)
            images |= named
            structures |= set(label.structures) if named else set()
        yield key, images, structures


def _by_instance(index: Index, label: LabelRecord) -> set[str]:
    """Series of the same study that hold an image the object refers to, for objects that name no series."""
    instances = set(label.instances)
    return {
        image
        for image in index.series_keys(f"{IMAGE}{label.record.study}/")
        if any(instances & _instances_of(file) for file in index.files(series=image))
    }


def _instances_of(file: IndexedFile) -> set[str]:
    from medssl.archive.dicom.record import parse_record

    return {parse_record(file.record).instance} if file.record else set()


def _touched(links: Mapping[str, set[str]], dirty: set[str]) -> set[str]:
    """All series that hang together with a dirty one through a label object."""
    touched = set(dirty)
    while True:
        groups = [{key, *images} for key, images in links.items()]
        grown = touched.union(*(group for group in groups if group & touched))
        if grown == touched:
            return touched
        touched = grown


def _in_order(files: Sequence[IndexedFile]) -> list[tuple[IndexedFile, LabelRecord]]:
    """Objects from the oldest to the newest; of copies of one object the first."""
    read = [(file, parse_label_record(file.record or "")) for file in files]
    read.sort(key=lambda pair: (pair[1].created, pair[1].record.instance, pair[0].path))
    return [next(group) for _, group in groupby(read, key=lambda pair: pair[1].record.instance)]


def _refers(label: LabelRecord, scan: AssembledScan) -> bool:
    """Whether the object was made on slices of this scan; where it lists none, on its whole series."""
    if label.instances:
        listed = set(label.instances)
        return any(copy.record.instance in listed for slice_ in scan.slices for copy in (slice_, *slice_.duplicates))
    return scan.record.series in label.series


def _agree(a: str, b: str) -> bool:
    return not a or not b or a == b
