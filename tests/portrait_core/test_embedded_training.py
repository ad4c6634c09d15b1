"""Training of the embedded generator: what the losses see, how it resumes, how it is judged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait_core.cameras import orbit_labels
from portrait_core.generators import GeneratorSettings, TriPlaneGenerator, save_generator
from portrait_core.training import losses
from portrait_core.training.architecture import embedded_settings, transplant
from portrait_core.training.evaluate import amplitude, evaluate, main, table, to_pictures
from portrait_core.training.shards import ShardSet, load_views
from portrait_core.training.train import Schedule, Trainer, parameter_groups, train

SIZE = 32


def _settings(**changes: object) -> GeneratorSettings:
    """The shipped architecture, small enough to train in a test."""
    small = {
        "w_dim": 8, "mapping_width": 12, "channels": {4: 8, 8: 8, 16: 4}, "plane_channels": 4,
        "basis_planes": {8: 2, 16: 3}, "feature_channels": 4, "decoder_hidden": 8, "neural_resolution": 16,
        "sampling": {"near": losses.NEAR, "far": losses.FAR, "n_coarse": 6, "n_fine": 4},
        "background": {"resolution": 8, "basis_maps": 2}, "flow": {8: 2},
        "superresolution": {
            "input_resolution": 16, "channels": (4, 4), "upsample": (False, True), "resize_input": False,
        },
    }  # fmt: skip
    return GeneratorSettings.model_validate(embedded_settings(6).model_dump() | small | changes)


def _write_shard(path: Path, seed: int, people: int = 4, views: int = 2, expressions: int = 1) -> None:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 255, (people, views, SIZE, SIZE, 3)).astype(np.uint8)
    half = SIZE // 2
    np.savez(
        path,
        z=rng.normal(size=(people, 6)).astype(np.float32),
        image=grey,
        alpha=np.full(grey.shape[:-1], 255, np.uint8),
        depth=np.full((people, views, half, half), 2.6, np.float16),
        camera=np.broadcast_to(orbit_labels(0.0, 0.0, 0.0), (people, views, 25)).astype(np.float32),
        key_points=np.broadcast_to([[0.5, 0.7], [0.4, 0.4], [0.6, 0.4]], (people, views, 3, 2)).astype(
            np.float32
        ),
        wall=np.full((people, 8, 8, 3), 128, np.uint8),
        expressions=np.array(expressions),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        _write_shard(shards / f"shard_{number:04d}.npz", number, expressions=2 if number == 2 else 1)
    return shards


SCHEDULE = Schedule(
    steps=6, heads=2, patch=12, surface_rays=20, rendered_patch=12, rendered_rays=20, rendering_from=0.0,
    perceptual_from=2.0,
)  # fmt: skip


def _trainer(folder: Path) -> Trainer:
    return Trainer(ShardSet(folder), SCHEDULE, 0, _settings())


def test_a_wider_generator_takes_over_the_function_of_a_narrower_one() -> None:
    torch.manual_seed(0)
    old = TriPlaneGenerator(_settings())
    new = TriPlaneGenerator(_settings(w_dim=16, mapping_width=20))
    transplant(old, new)
    z, camera = torch.randn(2, 6), orbit_labels(0.2, 0.1, 0.0).repeat(2, 0)
    before, after = (g(z, torch.as_tensor(camera))["image"] for g in (old, new))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_more_basis_maps_start_faint() -> None:
    torch.manual_seed(0)
    old = TriPlaneGenerator(_settings())
    new = TriPlaneGenerator(_settings(basis_planes={8: 4, 16: 6}))
    transplant(old, new)
    z = torch.randn(2, 6)
    with torch.no_grad():
        before, after = (g.planes(g.mapping(z)).volume for g in (old, new))
    assert 0 < float((after - before).abs().mean()) < 0.1 * float(before.std())


def test_a_generator_without_a_flow_is_given_one_that_does_nothing_yet() -> None:
    torch.manual_seed(0)
    old, new = TriPlaneGenerator(_settings(flow={})), TriPlaneGenerator(_settings())
    transplant(old, new)
    z = torch.randn(2, 6)
    with torch.no_grad():
        before, after = (g.planes(g.mapping(z)).volume for g in (old, new))
    torch.testing.assert_close(after, before)


def test_another_density_gain_leaves_empty_space_as_clear() -> None:
    torch.manual_seed(0)
    old = TriPlaneGenerator(_settings(density_gain=10.0))
    new = TriPlaneGenerator(_settings(density_gain=40.0))
    transplant(old, new)
    z, points = torch.randn(1, 6), torch.rand(1, 50, 3) * 0.3
    with torch.no_grad():
        before, after = (g.sample_points(g.planes(g.mapping(z)), points)[1] for g in (old, new))
    torch.testing.assert_close(10.0 * before.exp(), 40.0 * after.exp())


def test_a_narrower_generator_cannot_take_over() -> None:
    with pytest.raises(ValueError, match="shrinks"):
        transplant(TriPlaneGenerator(_settings(w_dim=16)), TriPlaneGenerator(_settings()))


def test_patches_lie_on_mouth_and_eyes(folder: Path) -> None:
    view = load_views(folder / "shard_0000.npz", 4)
    many = load_views(folder / "shard_0000.npz", 4, views=2)
    corners = torch.cat([losses.pick_corners(view, 4, torch.Generator().manual_seed(i)) for i in range(200)])
    assert corners.min() >= 0
    assert corners.max() <= SIZE // 2 - 4
    at_mouth = ((corners[:, 0] + 2 - 0.7 * 16).abs() <= 2).float().mean()
    assert at_mouth > losses.PATCH_SHARES[0]
    index = losses.patch_rays(16, torch.tensor([[3, 5]]), 2)
    assert index.tolist() == [[53, 54, 69, 70]]
    assert losses.pick_rays(many, 100, torch.Generator().manual_seed(0)).shape == (8, 100)


def test_pairs_differ_in_expression_alone(folder: Path) -> None:
    shards = ShardSet(folder)
    assert shards.has_pairs
    assert len(shards) == 2
    view = shards.sample_pairs(3, 1, np.random.default_rng(0))
    held = {tuple(z) for z in np.load(folder / "shard_0002.npz")["z"].reshape(2, -1).tolist()}
    assert all(tuple(sorted(map(tuple, pair))) in {
        tuple(sorted((p[:6], p[6:]))) for p in held
    } for pair in view.z.view(3, 2, 6).tolist())  # fmt: skip


def test_without_pairs_the_message_says_what_to_do(folder: Path) -> None:
    (folder / "shard_0002.npz").unlink()
    with pytest.raises(ValueError, match="--expressions 2"):
        ShardSet(folder).sample_pairs(1, 1, np.random.default_rng(0))


def test_the_pair_loss_sees_no_error_that_both_share() -> None:
    shared = torch.ones(2, 3, 4, 4)
    assert losses.paired_colour_loss(shared, True) == losses.colour_loss(shared)
    opposed = shared * torch.tensor([1.0, -1.0])[:, None, None, None]
    assert losses.paired_colour_loss(opposed, True) > losses.colour_loss(opposed)


def test_every_parameter_is_trained_once() -> None:
    generator = TriPlaneGenerator(_settings())
    groups = parameter_groups(generator, SCHEDULE)
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(generator.parameters()))


def test_training_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    whole = _trainer(folder)
    train(whole, tmp_path / "whole", every=6)
    part = _trainer(folder)
    for _ in range(3):
        part.train_step()
    again = _trainer(folder)
    again.load(part.state())
    train(again, tmp_path / "again", every=6)
    assert again.step == 6
    for a, b in zip(whole.generator.parameters(), again.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert (tmp_path / "again" / "sheet_000006.png").exists()


def test_training_starts_from_given_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = TriPlaneGenerator(_settings())
    save_generator(given, tmp_path / "given.safetensors", half=False)
    trainer = _trainer(folder)
    trainer.start_from(tmp_path / "given.safetensors")
    for a, b in zip(trainer.average.parameters(), given.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_schedule_ends_low_and_renders_every_other_step() -> None:
    schedule = Schedule(steps=1000, rendering_from=0.5)
    assert schedule.rate(0) < 0.1 * schedule.rate(300)
    assert schedule.rate(1000) == pytest.approx(0.01 * schedule.learning_rate)
    assert not any(schedule.renders(i) for i in range(500))
    assert sum(schedule.renders(i) for i in range(500, 1000)) == 250


def test_perfect_pictures_have_full_amplitude() -> None:
    opening = np.linspace(0.0, 0.3, 8)

    def tracker(pictures: np.ndarray) -> dict[str, np.ndarray]:
        level = pictures.mean((1, 2, 3)) / 255
        return {"lip_gap": level, "eye_opening": np.where(level > 0, level, np.nan)}

    truth = torch.as_tensor(opening, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 4, 4) * 2 - 1
    report = amplitude(tracker, truth, truth)
    assert report["lip_gap_slope"] == pytest.approx(1.0)
    weak = amplitude(tracker, truth, (truth + 1) * 0.5 - 1)
    assert weak["lip_gap_slope"] == pytest.approx(0.5, abs=0.02)
    assert weak["lip_gap_correlation"] > 0.99


def test_the_table_has_a_column_a_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_generator(TriPlaneGenerator(_settings()), tmp_path / "a.safetensors")
    measures = {"lip_gap": np.arange(4.0), "eye_opening": np.arange(4.0)}
    monkeypatch.setattr("portrait_core.training.evaluate.embedded_tracker", lambda: lambda _: measures)
    weights, shard = str(tmp_path / "a.safetensors"), str(folder / "shard_0000.npz")
    main(["--shards", shard, "--weights", weights, "--sheet", str(tmp_path / "sheets")])
    printed = capsys.readouterr().out
    assert "| psnr_mouth |" in printed
    assert "lip_gap_slope | 1.00 |" in printed
    assert (tmp_path / "sheets" / "shard_0000_a.png").exists()
    assert table(["x"], [{"depth_mae": 0.0123}]).endswith("| depth_mae | 0.0123 |")


def test_evaluation_of_a_perfect_copy_has_no_error(folder: Path) -> None:
    generator = TriPlaneGenerator(_settings()).requires_grad_(False)
    view = load_views(folder / "shard_0000.npz", 2)
    _, images = evaluate(generator, view)
    same = type(view)(**{**vars(view), "image": images + 1e-4})
    report, _ = evaluate(generator, same)
    assert report["psnr"] > 80
    assert report["psnr_mouth"] > 80
    assert to_pictures(images).shape == (2, SIZE, SIZE, 3)
