"""What can be downloaded: the records of each DCASE year on Zenodo with their archives, and the truth lists of eval.

Names of archives are those in the download scripts of the official baseline (nttcslab/dcase2023_task2_baseline_ae),
which unpack them. MD5s of 2020 and 2023 are those that soundata (dcase2020task2.py, dcase23_task2.py) compares. For
2021, 2022 and 2024 no source was found: those come from the record itself, or from the first download.

Truth lists come from the evaluator of each year, at a fixed revision. `eval_data_list_2022.csv` of the baseline is not
used: ASDKit (TakuyaFujimura/dcase-asd-toolkit, data/check_and_update.py) found 608 labels of ToyCar and ToyTrain in it
that contradict the evaluator's, and no contradiction in the lists of the other years.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from raysd.data.years import YEARS

Download = Literal["dev", "additional", "eval"]
"""A part as it is published: dev; additional, the training data of the machines or sections of eval; eval, its test
data, with the truth lists."""
DOWNLOADS: tuple[Download, ...] = ("dev", "additional", "eval")
Site = Literal["zenodo", "github"]
SITES: dict[Site, str] = {"zenodo": "https://zenodo.org", "github": "https://raw.githubusercontent.com"}


@dataclass(frozen=True)
class Record:
    """A record on Zenodo with an archive a machine."""

    number: int
    archive: str
    """Name of an archive, with `{machine}`."""
    revised: Mapping[str, str] = field(default_factory=dict)
    """Machine -> name of its archive where that was replaced."""


@dataclass(frozen=True)
class TruthLists:
    """The labels, and the domains where clips are not named by them, of the test clips of eval."""

    site: Site
    folder: str
    """Where the lists are on that site."""
    names: tuple[str, ...]
    """Their names below it, with `{machine}` and `{section}` where there is one a section."""
    record: int | None = None


@dataclass(frozen=True)
class Remote:
    """One file to download."""

    name: str
    """Of an archive; of a truth list also where it belongs below the data root."""
    part: Download
    machine: str | None
    """None: a truth list."""
    site: Site
    path: str
    """Its address below the site's."""
    record: int | None
    checksum: str | None
    """"md5:<hex>"; None where it is not known."""


_BY_SECTION = "ground_truth_data/ground_truth_{machine}_section_{section}_test.csv"
_DOMAIN_BY_SECTION = "ground_truth_domain/ground_truth_{machine}_section_{section}_test.csv"

RECORDS: dict[int, dict[Download, Record]] = {
    2020: {
        "dev": Record(3678171, "dev_data_{machine}.zip"),
        "additional": Record(3727685, "eval_data_train_{machine}.zip"),
        "eval": Record(3841772, "eval_data_test_{machine}.zip"),
    },
    2021: {
        "dev": Record(4562016, "dev_data_{machine}.zip"),
        "additional": Record(4660992, "eval_data_{machine}_train.zip"),
        "eval": Record(4884786, "eval_data_{machine}_test.zip"),
    },
    2022: {
        "dev": Record(6355122, "dev_{machine}.zip"),
        "additional": Record(6462969, "eval_data_{machine}_train.zip"),
        "eval": Record(6586456, "eval_data_{machine}_test.zip"),
    },
    2023: {
        "dev": Record(7882613, "dev_{machine}.zip"),
        "additional": Record(7830345, "eval_data_{machine}_train.zip"),
        "eval": Record(7860847, "eval_data_{machine}_test.zip"),
    },
    2024: {
        "dev": Record(10902294, "dev_{machine}.zip"),
        "additional": Record(
            11259435,
            "eval_data_{machine}_train.zip",
            {name: f"eval_data_{name}_train_r2.zip" for name in ("3DPrinter", "RoboticArm")},
        ),
        "eval": Record(11363076, "eval_data_{machine}_test.zip"),
    },
}

TRUTH: dict[int, TruthLists] = {
    2020: TruthLists("zenodo", "records/3951620/files", ("eval_data_list.csv",), 3951620),
    2021: TruthLists(
        "github",
        "y-kawagu/dcase2021_task2_evaluator/0c11634ba7259e4ae4a655646aebd6cd056cc523",
        tuple(_BY_SECTION.replace("_test", f"_{domain}_test") for domain in ("source", "target")),
    ),
    2022: TruthLists(
        "github",
        "Kota-Dohi/dcase2022_evaluator/9785ae5c63f6308c699b8b82cff3bfcd08667df3",
        (_BY_SECTION, _DOMAIN_BY_SECTION),
    ),
    2023: TruthLists(
        "github",
        "nttcslab/dcase2023_task2_evaluator/c850537ff8e3b81ab09d90041279dbf86811738b",
        (_BY_SECTION, _DOMAIN_BY_SECTION),
    ),
    2024: TruthLists(
        "github",
        "nttcslab/dcase2024_task2_evaluator/7033756a2dd21e445268e0fe2c60d736e0ce507c",
        (_BY_SECTION, _DOMAIN_BY_SECTION),
    ),
}

MD5: dict[int, dict[str, str]] = {
    2020: {
        "dev_data_ToyCar.zip": "4dec75ca8d9f666aa9e4c1894a740501",
        "dev_data_ToyConveyor.zip": "03b6aa1bfd09a39d53af0ba39f71fa91",
        "dev_data_fan.zip": "649bdfc06263ae7a838963f43b6641e6",
        "dev_data_pump.zip": "90e7091ef722b7238a7f1009365779cd",
        "dev_data_slider.zip": "da24a757719f0d94d5aa2d646bbfdc86",
        "dev_data_valve.zip": "34d2672f55bb041589ef79c10dc89934",
        "eval_data_test_ToyCar.zip": "bea2bdd612f616be8f2b8eb087b32c7c",
        "eval_data_test_ToyConveyor.zip": "ccfcc9847c7d3404d7ee9d6d9e0b2ba2",
        "eval_data_test_fan.zip": "1eb9356a768cadfd0f2e59a5c57e578b",
        "eval_data_test_pump.zip": "23a8f8f924be218c69df67fe07360348",
        "eval_data_test_slider.zip": "0193c769073840332ce3aad84b1ccaa2",
        "eval_data_test_valve.zip": "f69c551d2088691050d20cccca9d631c",
        "eval_data_train_ToyCar.zip": "a5d4ccd498af70b04dd74b644b820006",
        "eval_data_train_ToyConveyor.zip": "0e808ac0b761e9fb13d5e0c65caff00d",
        "eval_data_train_fan.zip": "567798854130c8019df8b664c095ed1e",
        "eval_data_train_pump.zip": "4e33ae9c0db5cc88437675f5e317caee",
        "eval_data_train_slider.zip": "f84f186f4295fc23754abcdd1b0580a7",
        "eval_data_train_valve.zip": "057cdd560caffb8305449541afd28c6d",
    },
    2023: {
        "dev_ToyCar.zip": "4e3bf15f4101ed4ed4f1fecde2e2b2a3",
        "dev_ToyTrain.zip": "6b02a6c65eebb3b8b1ae59a6b25bb897",
        "dev_bearing.zip": "8a813bc8d8f156b5395bfccdfac7673c",
        "dev_fan.zip": "9348591e96fb0ad499a1e33b082562fc",
        "dev_gearbox.zip": "b6e55f6a31faa0fc8569ec0afdd53ccf",
        "dev_slider.zip": "b3f8dee36b4718c36d659a4fd1c4afe0",
        "dev_valve.zip": "b2051a2022eadb53cd97581120811cae",
        "eval_data_ToyDrone_test.zip": "fdae7b8d1f4cadb2bea88bc93e2367db",
        "eval_data_ToyDrone_train.zip": "7fea367d1384a1521ae24f72203238de",
        "eval_data_ToyNscale_test.zip": "62f5f5043d8fb3a305b1c2e1025872de",
        "eval_data_ToyNscale_train.zip": "9332822f3e47afd984c01f2ecb5ca3af",
        "eval_data_ToyTank_test.zip": "f5639bf58c47169c622751f19c6fc321",
        "eval_data_ToyTank_train.zip": "b1fd3ab7de7561290df2d477de1c9d33",
        "eval_data_Vacuum_test.zip": "a32524fd8c45b574a560685b38acc4e1",
        "eval_data_Vacuum_train.zip": "1c8de33d9a8c7850a1f7aaddb97d87be",
        "eval_data_bandsaw_test.zip": "2a8e8f39f6584ab366a8f4da52d4d7a6",
        "eval_data_bandsaw_train.zip": "9274dfe63de028743823f1123f8b4b47",
        "eval_data_grinder_test.zip": "631b3e1608b6077772829a6e68c82c77",
        "eval_data_grinder_train.zip": "17569c1f9df23621a0dbabc430684a35",
        "eval_data_shaker_test.zip": "ba98c98caa96051ec80e24e44b8fca56",
        "eval_data_shaker_train.zip": "35f821b5645b731fb5a1750e33b95fc3",
    },
}


def remotes(year: int, parts: Container[str], machines: Container[str] = ()) -> Iterator[Remote]:
    """The files of some parts of a year, of some machines or (none named) of all: archives in the order of the year's
    table, then truth lists if eval is among the parts."""
    chosen = [machine for machine in YEARS[year].machines if not machines or machine in machines]
    for part in DOWNLOADS:
        record = RECORDS[year][part]
        for machine in chosen if part in parts else ():
            if sections(year, machine, part):
                name = record.revised.get(machine, record.archive.format(machine=machine))
                path = f"records/{record.number}/files/{name}?download=1"
                md5 = MD5.get(year, {}).get(name)
                yield Remote(name, part, machine, "zenodo", path, record.number, md5 and f"md5:{md5}")
    if "eval" in parts:
        lists = TRUTH[year]
        ending = "?download=1" if lists.site == "zenodo" else ""
        places = {
            name.format(machine=machine, section=section)
            for name in lists.names
            for machine in chosen
            for section in sections(year, machine, "eval")
        }
        for name in sorted(places):
            yield Remote(name, "eval", None, lists.site, f"{lists.folder}/{name}{ending}", lists.record, None)


def sections(year: int, machine: str, part: Download) -> tuple[str, ...]:
    """The sections of a machine that a part has: none where the year has other machines in dev than in eval."""
    dev, evaluation = YEARS[year].machines[machine]
    return dev if part == "dev" else evaluation
