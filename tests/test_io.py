"""Files: what is read as what, everything that is refused, and files that appear whole."""

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image as Picture
from pydicom.data import get_testdata_file

from inverse import Samples
from inverse.checkpoint import Checkpoint
from inverse.io import read_array, read_image, write_bytes

CT = str(get_testdata_file("CT_small.dcm", download=False))


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def message(error, path):
    """The error's text, once it is known to be one line "FILE: reason; advice"."""
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert ";" in text
    assert "\n" not in text
    return text


class TestPictures:
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
    def test_eight_bits_divide_by_255(self, tmp_path, suffix, shape):
        values = noise(*shape)
        Picture.fromarray(values).save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        expected = torch.from_numpy(values if values.ndim == 3 else values[..., None])
        assert image.units == "intensity"
        assert image.spacing is None
        assert image.data.dtype == torch.float32
        assert torch.equal(image.data, expected.permute(2, 0, 1).float() / 255)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_divide_by_65535(self, tmp_path, suffix):
        values = noise(5, 7, high=65536, dtype=np.uint16)
        Picture.fromarray(values).save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert torch.equal(image.data[0], torch.from_numpy(values.astype(np.float32) / 65535))

    def test_jpeg_and_its_orientation(self, tmp_path):
        values = np.zeros((16, 32), np.uint8)
        values[:, 16:] = 255
        turned = Picture.Exif()
        turned[0x0112] = 6  # the camera was held on its side
        Picture.fromarray(values).save(tmp_path / "a.jpg", exif=turned, quality=95)
        data = read_image(tmp_path / "a.jpg").data
        assert data.shape == (1, 32, 16)
        assert data[0, :14].max() < 0.1
        assert data[0, 18:].min() > 0.9

    def test_the_content_decides_not_the_name(self, tmp_path):
        np.save(tmp_path / "a.npy", noise(4, 4))
        os.rename(tmp_path / "a.npy", tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").data.shape == (1, 4, 4)

    def test_palette_and_bilevel(self, tmp_path):
        palette = Picture.fromarray(noise(5, 7, high=2)).convert("P")
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.save(tmp_path / "p.png")
        data = read_image(tmp_path / "p.png").data
        assert data.shape == (3, 5, 7)
        assert torch.equal(data[0] + data[2], torch.ones(5, 7))
        Picture.fromarray(noise(5, 7, high=2) > 0).save(tmp_path / "b.png")
        assert set(read_image(tmp_path / "b.png").data.unique().tolist()) == {0.0, 1.0}

    @pytest.mark.parametrize(("mode", "word"), [
        ("RGBA", "alpha"), ("LA", "alpha"), ("CMYK", "CMYK"), ("I", "colour mode I"),
    ])  # fmt: skip
    def test_modes_without_one_meaning(self, tmp_path, mode, word):
        path = tmp_path / "a.tif"
        Picture.new(mode, (4, 4)).save(path)
        with pytest.raises(ValueError, match=word) as error:
            read_image(path)
        message(error, path)

    def test_transparent_palette_and_frames(self, tmp_path):
        path = tmp_path / "t.png"
        Picture.fromarray(noise(4, 4, high=2)).convert("P").save(path, transparency=0)
        with pytest.raises(ValueError, match="alpha"):
            read_image(path)
        path = tmp_path / "m.tif"
        pages = [Picture.fromarray(noise(4, 4)) for _ in range(3)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match="3 pictures"):
            read_image(path)

    def test_sixteen_bit_colour_would_lose_half(self, tmp_path):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(
                ">I", zlib.crc32(kind + body)
            )  # fmt: skip

        rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
        header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
        path = tmp_path / "a.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                         + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
        with pytest.raises(ValueError, match="16 bits"):
            read_image(path)

    def test_size_limit_comes_from_the_header(self, tmp_path):
        header = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)
        body = b"IHDR" + header
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
                         + struct.pack(">I", zlib.crc32(body))
            + struct.pack(">I", 100)
            + b"IDAT"
            + bytes(100))  # fmt: skip
        with pytest.raises(ValueError, match="declares") as error:
            read_image(path)
        message(error, path)
        Picture.fromarray(noise(5, 7, 3)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="5 x 7 x 3 values, more than 104"):
            read_image(tmp_path / "a.png", max_values=104)
        read_image(tmp_path / "a.png", max_values=105)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
    def test_cut_short_anywhere(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        if suffix == "npy":
            np.save(path, noise(24, 24))
        else:
            Picture.fromarray(noise(24, 24)).save(path)
        whole = path.read_bytes()
        for length in range(12, len(whole) * 9 // 10, max(1, len(whole) // 17)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="corrupt or truncated") as error:
                read_image(path)
            message(error, path)

    def test_random_damage_is_a_clear_error_or_an_image(self, tmp_path):
        rng = np.random.default_rng(1)
        Picture.fromarray(noise(16, 16, 3)).save(tmp_path / "a.png")
        Picture.fromarray(noise(16, 16, 3)).save(tmp_path / "a.jpg")
        np.save(tmp_path / "a.npy", noise(16, 16).astype(np.float32))
        for origin in ("a.png", "a.jpg", "a.npy", CT):
            whole = bytearray((tmp_path / origin).read_bytes())
            path = tmp_path / "damaged"
            for _ in range(40):
                damaged = bytearray(whole)
                damaged[rng.integers(len(whole) if origin != CT else 1200)] ^= rng.integers(1, 256)
                path.write_bytes(damaged)
                text = f"{path}: "
                try:
                    finite = bool(read_image(path).data.isfinite().all())
                except ValueError as error:
                    finite, text = True, str(error)
                assert finite
                assert text.startswith(f"{path}: ")
                assert "\n" not in text


class TestArrays:
    @pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (3, 4, 5)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
    def test_floats_stay_as_they_are(self, tmp_path, shape, dtype):
        values = np.random.default_rng(0).normal(size=shape).astype(dtype) * 1000
        np.save(tmp_path / "a.npy", np.asfortranarray(values))
        image = read_image(tmp_path / "a.npy")
        assert image.units == "raw"
        expected = values.reshape(-1, 4, 5).astype(np.float32)
        assert torch.equal(image.data, torch.from_numpy(expected))

    def test_bytes_are_intensities(self, tmp_path):
        np.save(tmp_path / "a.npy", noise(4, 5))
        image = read_image(tmp_path / "a.npy")
        assert image.units == "intensity"
        assert torch.equal(image.data[0], torch.from_numpy(noise(4, 5)).float() / 255)

    @pytest.mark.parametrize(("array", "word"), [
        (np.zeros((4, 5), np.int16), "int16"),
        (np.zeros((4, 5), bool), "bool"),
        (np.zeros((4, 5), complex), "complex128"),
        (np.zeros((8, 5, 3)), "channels go first"),
        (np.zeros(5), r"\(H, W\)"),
        (np.zeros((1, 1, 4, 5)), r"\(H, W\)"),
        (np.zeros((0, 5)), "empty"),
        (np.array([["a", "b"]]), "not numbers"),
        (np.zeros((2, 2), [("a", float)]), "not numbers"),
        (np.array([[1.0, np.nan], [np.inf, 0.0]]), r"2 values that are not finite.*\(0, 0, 1\)"),
        (np.full((2, 2), 1e300), "not finite"),
    ])  # fmt: skip
    def test_refused(self, tmp_path, array, word):
        path = tmp_path / "a.npy"
        np.save(path, array)
        with pytest.raises(ValueError, match=word) as error:
            read_image(path)
        message(error, path)

    def test_a_pickle_is_never_executed(self, tmp_path):
        canary = tmp_path / "canary"

        class Evil:
            def __reduce__(self):
                return (open, (str(canary), "w"))

        path = tmp_path / "a.npy"
        np.save(path, np.array([[Evil()]], dtype=object), allow_pickle=True)
        np.savez(tmp_path / "a.npz", x=np.array([Evil()], dtype=object))
        for call in (lambda: read_image(path), lambda: read_array(path)):
            with pytest.raises(ValueError, match="pickled objects, which are never read"):
                call()
        with pytest.raises(ValueError, match="pickled objects"):
            read_array(tmp_path / "a.npz", key="x")
        assert not canary.exists()

    def test_declared_size_is_refused_before_memory_is_taken(self, tmp_path):
        path = tmp_path / "a.npy"
        with open(path, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
            np.lib.format.write_array_header_1_0(file, header)
        with pytest.raises(ValueError, match="declares 1048576 x 1048576 values"):
            read_image(path)

    def test_archives_need_a_key(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=noise(2, 3), y=noise(4))
        assert np.array_equal(read_array(path, key="x"), noise(2, 3))
        for key in (None, "z"):
            with pytest.raises(ValueError, match="name one of x, y"):
                read_array(path, key=key)
        with pytest.raises(ValueError, match="archive"):
            read_image(path)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ValueError, match="corrupt"):
            read_array(path, key="x")


class TestDicom:
    def test_hounsfield_units_and_spacing(self):
        image = read_image(CT)
        dataset = pydicom.dcmread(CT)
        expected = dataset.pixel_array.astype(np.float32) - 1024
        assert image.units == "hounsfield"
        assert image.spacing == (0.661468, 0.661468)
        assert torch.equal(image.data[0], torch.from_numpy(expected))

    def test_padding_becomes_air(self, tmp_path):
        dataset = pydicom.dcmread(CT)
        dataset.PixelPaddingValue = int(dataset.pixel_array[0, 0])
        dataset.save_as(tmp_path / "a.dcm")
        assert read_image(tmp_path / "a.dcm").data[0, 0, 0] == -1000

    @pytest.mark.parametrize(("change", "word"), [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Modality": "MR"}, "no CT slice"),
        ({"PixelData": None}, "no pixels"),
        ({"Rows": None}, "no pixels"),
        ({"RescaleSlope": None}, "no rescale"),
        ({"PixelSpacing": [0, 1]}, "spacing"),
        ({"Rows": 20000, "Columns": 20000}, "declares 20000 x 20000"),
        ({"Rows": 200}, "corrupt"),
    ])  # fmt: skip
    def test_refused_without_a_patients_name(self, tmp_path, change, word, capfd):
        dataset = pydicom.dcmread(CT)
        dataset.PatientName, dataset.PatientID = "Secret^Person", "ID-4711"
        for name, value in change.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        path = tmp_path / "a.dcm"
        dataset.save_as(path)
        with pytest.raises(ValueError, match=word) as error:
            read_image(path)
        printed = capfd.readouterr()
        for text in (message(error, path), printed.out, printed.err):
            assert "Secret" not in text
            assert "4711" not in text

    def test_cut_short(self, tmp_path):
        whole = Path(CT).read_bytes()
        path = tmp_path / "a.dcm"
        for length in (140, 400, 1000, 3000, len(whole) // 2):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"corrupt|no pixels|no CT slice|colour") as error:
                read_image(path)
            message(error, path)


class TestFiles:
    def test_missing_folder_empty_and_foreign(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_image(tmp_path / "none.png")
        with pytest.raises(ValueError, match="folder"):
            read_image(tmp_path)
        path = tmp_path / "a.png"
        for content, word in ((b"", "is empty"), (b"GIF89a" + bytes(200), "no known format")):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=word) as error:
                read_image(path)
            message(error, path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_does_not_hang(self, tmp_path):
        path = tmp_path / "a.png"
        os.mkfifo(path)
        errors = []

        def read():
            try:
                read_image(path)
            except ValueError as error:
                errors.append(str(error))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert "pipe or device" in errors[0]

    def test_a_failed_write_keeps_the_old_file(self, tmp_path, monkeypatch):
        write_bytes(tmp_path / "a", b"old")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            write_bytes(tmp_path / "a", b"new")
        assert os.listdir(tmp_path) == ["a"]
        assert (tmp_path / "a").read_bytes() == b"old"

    def test_saving_samples_or_a_state_on_a_full_disk_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        x = torch.zeros(2, 1, 4, 4)
        with pytest.raises(OSError, match="full"):
            Samples(x).save(tmp_path)
        with pytest.raises(OSError, match="full"):
            Checkpoint(tmp_path, {"seed": 0}, x).save(0, {"x": x}, 1, final=True)
        assert os.listdir(tmp_path) == []
