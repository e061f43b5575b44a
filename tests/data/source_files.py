"""Small data sets in each source's own form, written by seeded code."""

import numpy as np
from image_files import encoded, grey

from lucency.data.folder import FolderSource
from lucency.data.medmnist import MedMnistSource
from lucency.data.nih import NihSource

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def write_folder(folder, table=None, n=12):
    """A folder of n films of n/2 patients, with the last file damaged."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["image,patient_id,view,Edema,Mass"]
    for k in range(n):
        (folder / "images" / f"{k}.png").write_bytes(encoded(grey(k)))
        lines.append(f"images/{k}.png,p{k // 2},{'PA' if k % 3 else ''},{k % 2},{'' if k else -1}")
    (folder / "images" / f"{n - 1}.png").write_bytes(encoded(grey(n))[:60])
    text = "\n".join(lines) if table is None else table
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return FolderSource(path=folder)


def nih_rows(n=12):
    labels = ["No Finding", "Mass|Hernia", "Pleural_Thickening"]
    return [
        f"{k:08}_000.png,{labels[k % 3]},0,{k // 2},58,M,{('AP', 'PA')[k % 2]},2682,2749,0.1,0.1"
        for k in range(n)
    ]


def write_nih(folder, rows=None, header=NIH_HEADER, test=range(8, 12), n=12):
    rows = nih_rows(n) if rows is None else rows
    for k in range(n):
        inner = folder / f"images_{1 + k % 2:03}" / "images"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{k:08}_000.png").write_bytes(encoded(grey(k)))
    (inner / f"{n - 1:08}_000.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]))
    names = [f"{k:08}_000.png" for k in range(n)]
    (folder / "test_list.txt").write_text("\n".join(names[k] for k in test))
    rest = [names[k] for k in range(n) if k not in test]
    (folder / "train_val_list.txt").write_text("\n".join(rest) + "\n")
    return NihSource(path=folder)


def medmnist_arrays(width=14, shape=(8, 6), sizes=(8, 3, 4)):
    generator = np.random.default_rng(0)
    arrays = {}
    for key, n in zip(("train", "val", "test"), sizes, strict=True):
        arrays[f"{key}_images"] = generator.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{key}_labels"] = generator.integers(0, 2, (n, width), dtype=np.uint8)
    return arrays


def write_medmnist(folder, name="chestmnist.npz", **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / name, **(arrays or medmnist_arrays()))
    return MedMnistSource(path=folder / name)
