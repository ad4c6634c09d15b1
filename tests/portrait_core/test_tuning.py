import copy
import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch

from portrait_core.cameras import angles_from_labels, orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.generators import Patch, TriPlaneGenerator
from portrait_core.inversion.draws import FrameOrder, rarity
from portrait_core.inversion.geometry import depth_error
from portrait_core.inversion.locality import Locality, neighbour
from portrait_core.inversion.targets import FrameTarget
from portrait_core.inversion.tuning import Clip, Tuner
from portrait_core.rendering.pose_renderer import PoseRenderer, target_cameras
from portrait_core.settings import CompositeSettings, RenderSettings, TuningSettings
from tests.portrait_core import tiny


def tuner(phi: torch.nn.Module, head: MorphableHead, **settings: Any) -> Tuner:
    """Two frames, a head at rest, and pictures that the untuned generator does not make."""
    generator = tiny.generator()
    ws = generator.mapping(
        torch.randn(2, generator.settings.z_dim, generator=torch.Generator().manual_seed(1))
    )
    picture = torch.nn.functional.interpolate(torch.linspace(-0.8, 0.8, 12).view(1, 3, 2, 2), 64)[0]
    pictures = [tiny.target(picture), tiny.target(-picture)]
    vertices = head.to_box(head.decode(torch.zeros(1, 50), torch.zeros(1, 52), torch.zeros(1, 3)))[0]
    clip = Clip(
        ws=ws,
        camera=tiny.CAMERA,
        frame=pictures.__getitem__,
        vertices=lambda i: vertices,
        matte=tiny.disc(0.4),
        plate=torch.zeros(3, tiny.SIZE, tiny.SIZE),
    )
    few = {"steps": 12, "batch": 2, "patch": 24, "novel_view_rays": 64, "learning_rate": 1e-2}
    chosen = TuningSettings(**few | settings)
    return Tuner(
        generator, phi, clip, HeadSurface(head), chosen, tiny.SAMPLING, tiny.RESOLUTION, checkpoint_s=0
    )


def test_tuning_fits_the_frames_and_leaves_mapping_and_latents_alone(
    phi: torch.nn.Module, head: MorphableHead
) -> None:
    tune = tuner(phi, head)
    before = {k: v.clone() for k, v in tune.generator.state_dict().items()}
    ws = tune.clip.ws.clone()
    losses = tune.run()
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert torch.equal(tune.clip.ws, ws)
    changed = {k for k, v in tune.generator.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert not any("mapping" in name for name in changed)
    assert not any(p.requires_grad for p in tune.generator.parameters())


def test_a_killed_tuning_resumes_to_the_very_same_generator(
    phi: torch.nn.Module, head: MorphableHead
) -> None:
    whole = tuner(phi, head)
    losses = whole.run()

    memory, stopped = tiny.Memory(), tuner(phi, head)

    def stop_at_seven(step: int, loss: float | None) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(memory, stop_at_seven)
    resumed = tuner(phi, head)
    assert resumed.run(memory) == losses
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(resumed.generator.state_dict()[name], value), name


def test_frames_are_loaded_once_and_kept_within_the_memory_that_is_given(
    phi: torch.nn.Module, head: MorphableHead
) -> None:
    def loaded(memory_mib: int | None, **settings: Any) -> tuple[list[float], list[int]]:
        tune, asked = tuner(phi, head, **settings), list[int]()

        def frame(i: int) -> FrameTarget:
            asked.append(i)
            return tune.clip.frame(i)

        clip = dataclasses.replace(tune.clip, frame=frame)
        again = Tuner(
            tune.generator, phi, clip, tune.surface, tune.settings, tune.sampling, tune.resolution,
            memory_mib=memory_mib,
        )  # fmt: skip
        return again.run(), asked

    losses, asked = loaded(None)
    assert sorted(asked) == [0, 1]  # of 24 draws
    paper = {"patch": 32, "depth_anchor": 0.0, "novel_view": 0.0, "background": 0.0}
    kept, asked = loaded(None, **paper)
    assert sorted(asked) == [0, 0, 1]  # once to see how large a frame's features are
    afresh, _ = loaded(0, **paper)  # too little for features: they are made in every step
    assert kept[:3] == pytest.approx(afresh[:3], rel=1e-4)  # rounding grows from step to step
    assert losses != kept


@pytest.mark.parametrize("off", ["depth_anchor", "novel_view", "background", "lpips_weight"])
def test_each_extra_term_can_be_turned_off_and_changes_the_loss_when_on(
    phi: torch.nn.Module, head: MorphableHead, off: str
) -> None:
    with_term = tuner(phi, head).run()[0]
    without = tuner(phi, head, **{off: 0.0}).run()[0]
    assert without < with_term


def test_locality_holds_neighbouring_latents_at_other_cameras_to_the_untuned_generator(
    phi: torch.nn.Module, head: MorphableHead
) -> None:
    def drift(**settings: Any) -> float:
        tune = tuner(phi, head, **settings)
        before = copy.deepcopy(tune.generator)
        tune.run()
        judge = Locality(before, phi, tune.reconstruction, tiny.SAMPLING, alpha=2.0)
        rng = torch.Generator().manual_seed(5)
        patch = Patch.whole(tiny.RESOLUTION)
        camera = torch.from_numpy(orbit_labels(0.3, 0.1))
        with torch.no_grad():
            losses = [judge.loss(tune.generator, tune.clip.ws[:1], camera, patch, rng) for _ in range(4)]
        return float(sum(losses))

    held = drift(locality=2.0, locality_every=1, locality_alpha=2.0, locality_patch=24)
    assert held < 0.8 * drift()


def test_a_neighbour_is_alpha_away_from_the_pivot_on_the_way_to_the_other() -> None:
    pivot, other = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    near = neighbour(pivot, other, 1.5)
    assert float((near - pivot).square().sum(-1).mean().sqrt()) == pytest.approx(1.5, rel=1e-5)
    torch.testing.assert_close(
        (near - pivot) / (near - pivot).norm(), (other - pivot) / (other - pivot).norm()
    )
    assert torch.equal(neighbour(pivot, other, 1e6), pivot + (other - pivot))


def draws(ws: torch.Tensor, steps: int, **settings: Any) -> list[int]:
    order = FrameOrder(ws, TuningSettings(batch=2, **settings))
    return [i for step in range(steps) for i in order.of(step)]


def test_a_seed_moves_frames_patches_and_cameras(phi: torch.nn.Module, head: MorphableHead) -> None:
    def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        made = tuner(phi, head, seed=seed, steps=20, patch=16, rare_share=1.0).draws()
        order = FrameOrder(torch.randn(20, 1, 8, generator=torch.Generator().manual_seed(0)), made._settings)
        return made._corners, made._cameras, torch.tensor([order.of(step) for step in range(20)])

    for one, other, again in zip(drawn(0), drawn(1), drawn(0), strict=True):
        assert not torch.equal(one, other)
        assert torch.equal(one, again)


def test_locality_is_about_the_frame_that_is_drawn(
    phi: torch.nn.Module, head: MorphableHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    pivots, plain = set(), Locality.loss

    def noting(self: Locality, generator: TriPlaneGenerator, pivot: torch.Tensor, *rest: Any) -> object:
        pivots.add(tuple(pivot.flatten().tolist()))
        return plain(self, generator, pivot, *rest)

    monkeypatch.setattr(Locality, "loss", noting)
    tuner(phi, head, locality=0.1, locality_every=1, locality_patch=8).run()
    assert len(pivots) == 2


def test_every_frame_is_drawn_once_before_any_is_drawn_twice() -> None:
    drawn = draws(torch.randn(5, 1, 32), 5, rare_share=0.0)
    assert sorted(drawn[:5]) == list(range(5))
    assert sorted(drawn[5:]) == list(range(5))
    assert drawn[:5] != drawn[5:]


def test_rare_expressions_are_drawn_more_often() -> None:
    ws = torch.zeros(20, 1, 32)
    ws[7] = 1
    assert draws(ws, 100, rare_share=0.0).count(7) == 10
    # half the 200 draws by rarity, where frame 7 weighs 20 against 19 frames of 20/19: 50, and 5 of the rest
    assert 40 < draws(ws, 100, rare_share=0.5).count(7) < 75


def test_a_rare_frame_between_two_common_ones_is_drawn_as_often_as_either() -> None:
    ws = torch.full((21, 1, 32), 1.0)
    ws[10:20], ws[20] = -1.0, 0.0  # nearest to the clip's mean, and seldom
    drawn = draws(ws, 150, rare_share=1.0)
    assert drawn.count(20) > 35  # uniform draws give 14 of 300; a weight by distance from the mean, none
    assert 90 < sum(i < 10 for i in drawn) < 160


def test_rarity_is_one_over_the_share_of_frames_that_look_alike() -> None:
    ws = torch.zeros(40, 8)
    ws[7], ws[20:30] = 5.0, -5.0
    weight = rarity(ws + 0.01 * torch.randn(40, 8))
    assert float(weight[7] / weight[0]) == pytest.approx(29, rel=0.2)
    assert float(weight[25] / weight[0]) == pytest.approx(2.9, rel=0.2)
    assert torch.isfinite(rarity(torch.zeros(5, 8))).all()


def test_nothing_is_seen_through_the_fitted_head_and_hair_may_lie_before_it() -> None:
    wanted = torch.full((4,), 2.7)
    made = torch.tensor([2.6, 2.8, 2.6, 2.8])
    face = torch.tensor([1.0, 1.0, 0.0, 0.0])
    error = depth_error(made, wanted, face)
    torch.testing.assert_close(error, torch.tensor([0.1, 0.1, 0.0, 0.09]))


def pose_renderer(mode: Literal["face", "whole"] = "face") -> tuple[torch.Tensor, torch.Tensor, PoseRenderer]:
    generator = tiny.generator()
    rng = torch.Generator().manual_seed(2)
    ws = generator.mapping(torch.randn(2, generator.settings.z_dim, generator=rng))
    face = tiny.disc(0.25)[None]
    settings = RenderSettings(samples=8, importance_samples=6)
    return ws, face, PoseRenderer(
        generator, ws[:1], face, tiny.CAMERA, settings, CompositeSettings(mode=mode, feather_px=3.0)
    )  # fmt: skip


def test_outside_the_face_every_frame_is_the_first_frames_render() -> None:
    ws, face, renderer = pose_renderer()
    frame = renderer.render(ws[1:], face, torch.from_numpy(orbit_labels(0.2, 0.1)))
    outside, inside = frame.mask == 0, frame.mask == 255
    assert outside.any()
    assert inside.any()
    assert np.abs(frame.image[outside].astype(int) - frame.first[outside]).max() <= 1
    assert np.abs(frame.image[inside].astype(int) - frame.first[inside]).mean() > 1
    assert frame.depth.shape == (tiny.RESOLUTION, tiny.RESOLUTION)


def test_the_first_frame_composited_on_itself_is_itself() -> None:
    ws, face, renderer = pose_renderer()
    frame = renderer.render(ws[:1], face, torch.from_numpy(orbit_labels(-0.2, 0.0)))
    assert np.abs(frame.image.astype(int) - frame.first).max() <= 2


def test_whole_mode_takes_the_frame_as_it_is() -> None:
    ws, face, renderer = pose_renderer("whole")
    frame = renderer.render(ws[1:], face, tiny.CAMERA)
    assert (frame.mask == 255).all()


def test_target_cameras_follow_the_driver_within_limits() -> None:
    driver = np.concatenate([orbit_labels(0.1, 0.0, 0.2), orbit_labels(1.2, -1.0, 0.2)])
    portrait = orbit_labels(-0.1, 0.05)
    settings = RenderSettings(pose_window=1, max_yaw_deg=40, max_pitch_deg=30, max_turn_deg=180)
    angles = angles_from_labels(target_cameras(driver, portrait, settings))
    assert angles[0] == pytest.approx([0.1, 0.0, 0.2], abs=1e-5)
    assert np.degrees(angles[1]) == pytest.approx([40, -30, np.degrees(0.2)], abs=1e-3)
    fixed = settings.model_copy(update={"pose_transfer": "none"})
    assert np.array_equal(target_cameras(driver, portrait, fixed), np.repeat(portrait, 2, axis=0))
    relative = settings.model_copy(update={"pose_transfer": "relative"})
    assert angles_from_labels(target_cameras(driver, portrait, relative))[0] == pytest.approx(
        [-0.1, 0.05, 0.0], abs=1e-5
    )
