"""A trial at hand -> a folder to listen to the clips that it ranked most wrong.

F mel bands, T frames.
"""

import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import soundfile as sf
import torch
from pydantic import ValidationError

from raysd.data.audio import Unusable, decode, header
from raysd.data.store import known_fingerprint
from raysd.detect.wrong import RankedClip, RankedGroup, most_wrong
from raysd.errors import BadInput
from raysd.model.features import LogMel, build_front_end
from raysd.paper.listen import MARK, ShownClip, ShownGroup, Spectrogram, listening_page, picture
from raysd.recipe import NUMERICS, Recipe, recipe_key
from raysd.results.store import Record
from raysd.session import Session

NUM_CLIPS = 5
"""Normal clips, and anomalies, of each section and domain."""
_OWN = re.compile(r"index\.html|clip-\d+\.(wav|flac|ogg|png)")
_WARNING = (
    "Labels of test clips chose the clips that stand here. To look at them and then change the recipe is to choose on "
    "test labels: a score on the same clips says nothing fair of the changed recipe."
)


def write_listening(
    folder: Path,
    session: Session,
    beginning: str | None = None,
    command: str = "raysd report --listen",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Record:
    """Writes index.html with audio files and spectrograms into `folder`, whole or not at all; gives the trial shown.

    The trial is the one whose key starts with `beginning`, else the first finished seed of the study's baseline.
    Raises BadInput where there is none, where it has no labelled test clips, where none of its clips is below the data
    root, and for a folder that holds anything but an earlier page.
    """
    _require_own(folder)
    record = session.results.find(beginning) if beginning is not None else _first_of_baseline(session)
    groups = most_wrong(pd.DataFrame(record.scores), NUM_CLIPS)
    if not groups:
        raise BadInput(
            f"trial {record.key}: no section has labelled test clips of both classes, so none is ranked wrong"
        )
    try:
        recipe = Recipe.model_validate_json(record.recipe)
    except ValidationError:
        raise BadInput(f"trial {record.key}: its recipe is of another version of raysd; give another --trial") from None
    with _in_place_of(folder) as hidden:
        hall = _Hall(hidden, session.data_root, recipe, sum(len(_paths(group)) for group in groups), progress)
        shown = [hall.group(group) for group in groups]
        if session.data_root is not None and not hall.made:
            raise BadInput(
                f"{session.data_root}: none of the clips of trial {record.key} can be heard from there (the first: "
                f"{hall.first_problem}); give the data that it was run on"
            )
        facts = [*_about(record, recipe), *hall.about(), *_other_clips(session, record, recipe)]
        title = f"{record.study}: what {record.variant}, seed {record.seed}, ranked most wrong"
        made = f"Made by '{command}' on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
        text = listening_page(title, _WARNING, facts, shown, made)
        (hidden / "index.html").write_text(text, encoding="utf-8")
    return record


class _Hall:
    """Takes clip after clip: its audio and its spectrogram go into the folder."""

    def __init__(
        self, folder: Path, data_root: Path | None, recipe: Recipe, total: int, progress: Callable[[int, int], None]
    ) -> None:
        self._folder, self._root, self._recipe = folder, data_root, recipe
        self._front_end: LogMel = build_front_end(recipe.features, recipe.data.sample_rate_hz)
        self._total, self._progress = total, progress
        self._number = 0
        self.made = Counter[str]()
        """How the audio of how many clips was made."""
        self.first_problem = ""

    def group(self, group: RankedGroup) -> ShownGroup:
        """The clips of a group, drawn in the same colours."""
        heard = {path: self._heard(path) for path in _paths(group)}
        found = [spectrogram for _, _, spectrogram in heard.values() if spectrogram is not None]
        low, high = (
            np.percentile(np.concatenate([one.log_mel_FT.ravel() for one in found]), (1, 99.9)) if found else (0, 1)
        )

        def shown(clip: RankedClip) -> ShownClip:
            audio, note, spectrogram = heard[clip.path]
            if spectrogram is None:
                return ShownClip(clip, note=note)
            name = f"{Path(audio).stem}.png"
            (self._folder / name).write_bytes(picture(spectrogram, float(low), float(high)))
            return ShownClip(clip, audio, name, spectrogram.alt(), note)

        domain = f", {group.domain} domain" if group.domain else ""
        return ShownGroup(
            f"{group.machine} {group.section}{domain} ({group.part})",
            [shown(clip) for clip in group.normals],
            [shown(clip) for clip in group.anomalies],
            shown(group.typical) if group.typical else None,
        )

    def about(self) -> Iterator[str]:
        """What holds for audio and spectrograms of the whole page."""
        if self._root is None:
            yield "Audio: not at hand; give --data-root to hear the clips and see their spectrograms."
            return
        ways = self.made | Counter({"not at hand": self._number - self.made.total()})
        yield f"Audio: {', '.join(f'{way} ({count} clips)' for way, count in ways.most_common() if count)}."
        band_hz_F, data = self._front_end.band_hz_F, self._recipe.data
        yield (
            f"Spectrograms: as the front end of the trial sees a clip ({self._recipe.features.front_end}, at "
            f"{self._front_end.rate_hz:,} Hz), before it is normalised: {self._front_end.num_bands} bands from "
            f"{band_hz_F[0]:,.0f} to {band_hz_F[-1]:,.0f} Hz, clips decoded at {data.sample_rate_hz:,} Hz. Brighter is "
            "louder, in the same colours for a whole section and domain."
        )

    def _heard(self, named: str) -> tuple[str, str, Spectrogram | None]:
        """The name of the audio file, how it was made or why there is none, and the spectrogram."""
        self._number += 1
        self._progress(self._number, self._total)
        if self._root is None:
            return "", "not at hand", None
        try:
            path = _below(self._root, named)
            spectrogram = self._seen(path)
            audio, way = self._copied(path)
        except (Unusable, BadInput) as error:
            self.first_problem = self.first_problem or f"{named}: {error}"
            return "", f"not at hand: {error}", None
        self.made[way] += 1
        return audio, way, spectrogram

    def _copied(self, path: Path) -> tuple[str, str]:
        """One channel is copied as it is. Of several the one that the trial heard is written anew."""
        about, channel, name = header(path), self._recipe.data.channel, f"clip-{self._number:03d}"
        suffix = path.suffix.lower()
        if about.channels == 1:
            shutil.copyfile(path, self._folder / f"{name}{suffix}")
            return f"{name}{suffix}", "a copy of the data set's file"
        samples, _ = decode(path, about.rate_hz, channel)
        sf.write(self._folder / f"{name}.wav", samples, about.rate_hz, subtype="PCM_16")
        which = "mean" if channel == "mean" else f"channel {channel}"
        return f"{name}.wav", f"{which} of {about.channels}, written as 16-bit wav"

    def _seen(self, path: Path) -> Spectrogram:
        data, front_end = self._recipe.data, self._front_end
        samples, _ = decode(path, data.sample_rate_hz, data.channel)
        with torch.inference_mode():
            log_mel_FT = front_end.log_mel(torch.from_numpy(samples)[None])[0].numpy()
        return Spectrogram(log_mel_FT, front_end.band_hz_F.numpy(), front_end.hop_samples / front_end.rate_hz)


def _first_of_baseline(session: Session) -> Record:
    """The baseline's first finished seed, on the corpus at hand where that is known."""
    study, results = session.study, session.results
    recipe, seeds = study.baseline.recipe, study.study.seeds
    known = _corpus(session, recipe)
    found = [
        row
        for row in results.rows(["key", "recipe_key", "numerics", "seed", "data_fingerprint"])
        if (row["recipe_key"], row["numerics"]) == (recipe_key(recipe), NUMERICS)
        and row["seed"] in seeds
        and known in (None, row["data_fingerprint"])
    ]
    if not found:
        raise BadInput(f"{results}: the baseline of study {study.name} is not finished; first: raysd run {study.name}")
    if len({row["data_fingerprint"] for row in found}) > 1:
        raise BadInput(f"{results}: the baseline of study {study.name} was run on several corpora; give --trial KEY")
    return results.read(min(found, key=lambda row: seeds.index(row["seed"]))["key"])


def _about(record: Record, recipe: Recipe) -> list[str]:
    return [
        f"Trial {record.key}: {record.variant}, seed {record.seed}, of study {record.study}, profile "
        f"{record.profile or 'none'}; DCASE {record.year}, data {record.data_fingerprint}; scorer "
        f"{recipe.scoring.name}.",
        "Most wrong: a normal clip by the number of anomalies of its section that have a lower score, an anomaly by "
        "the number of normal clips with a higher one; an equal score counts half. The domains of a section, if it "
        f"has any, count together, as they are ranked. At most {NUM_CLIPS} of each for every section and domain.",
        "The clip to compare with: a normal clip of the same section and domain; three quarters of these have a higher "
        "score.",
    ]


def _other_clips(session: Session, record: Record, recipe: Recipe) -> Iterator[str]:
    """A warning where what is heard may not be what was scored."""
    if session.data_root is None:
        return
    known = _corpus(session, recipe)
    if known is None:
        yield "The clips below the data root were not compared with those that were scored: they are not decoded here."
    elif known != record.data_fingerprint:
        yield f"The data root holds another corpus ({known}) than was scored: what is heard may not be what was scored."


def _corpus(session: Session, recipe: Recipe) -> str | None:
    """The fingerprint of the clips at hand; None where they are not decoded, or not all there."""
    if session.data_root is None:
        return None
    try:
        return known_fingerprint(session.data_root, recipe.data, session.cache, session.skip_bad)
    except BadInput:
        return None


def _below(root: Path, named: str) -> Path:
    """The file of a clip; results may come from elsewhere, so nothing outside of the data root is read."""
    path = PurePosixPath(named)
    if path.is_absolute() or ".." in path.parts or not (root / path).is_file():
        raise Unusable("no such file below the data root")
    if path.suffix.lower() not in (".wav", ".flac", ".ogg"):
        raise Unusable("not a file of audio")
    return root / path


def _paths(group: RankedGroup) -> list[str]:
    """The clips of a group, each once."""
    clips = [*group.normals, *group.anomalies, *([group.typical] if group.typical else [])]
    return list(dict.fromkeys(clip.path for clip in clips))


def _require_own(folder: Path) -> None:
    """Raises BadInput unless the folder is new, empty, or holds what an earlier call wrote and nothing else."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        others = [name for name in names if not _OWN.fullmatch(name)]
        index = folder / "index.html"
        ours = not names or (index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise BadInput(f"{folder}: no folder that can be read ({error.strerror}); give another with --listen") from None
    if others or not ours:
        what = f"holds {(others or names)[0]}, which is no part of a listening page"
        raise BadInput(f"{folder}: {what}; give a new folder with --listen")


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, which takes its place at the end; until then nothing there changes."""
    folder = folder.resolve()
    hidden = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    old = hidden.with_suffix(".old")
    try:
        hidden.mkdir(parents=True)
        yield hidden
        _require_own(folder)
        if folder.exists():
            folder.rename(old)
        try:
            hidden.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}; give another folder with --listen") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
