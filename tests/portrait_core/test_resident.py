import torch

from portrait_core.inversion.resident import HOST_BYTES, ResidentFrames, resident_bytes


def frames(count: int, limit_bytes: int, at_once: int) -> ResidentFrames:
    def load(frame: int) -> dict[str, torch.Tensor]:
        return {"image": torch.full((3, 4, 4), float(frame)), "number": torch.tensor([frame])}

    return ResidentFrames(load, count, limit_bytes, at_once)


def numbers(resident: ResidentFrames, wanted: list[int]) -> list[int]:
    places = resident.admit(wanted)
    return resident.rows("number", torch.tensor([places[frame] for frame in wanted]))[:, 0].tolist()


def test_a_clip_that_fits_is_loaded_once() -> None:
    resident = frames(10, 1 << 20, at_once=4)
    for wanted in ([1, 2, 2, 3], [9, 1], [4, 5, 6, 7], [8, 0], [3, 9, 0]):
        assert numbers(resident, wanted) == wanted
    assert resident.loads == 10
    assert resident.capacity == 10


def test_in_a_longer_clip_the_frames_that_were_not_drawn_for_longest_make_room() -> None:
    size = 3 * 4 * 4 * 4 + 8
    resident = frames(100, 5 * size, at_once=3)
    assert numbers(resident, [0, 1, 2]) == [0, 1, 2]
    assert resident.capacity == 5
    assert numbers(resident, [3, 4]) == [3, 4]
    assert numbers(resident, [0, 50]) == [0, 50]  # 1 goes
    assert numbers(resident, [2, 3, 4]) == [2, 3, 4]
    assert resident.loads == 6
    assert numbers(resident, [1, 60, 70]) == [1, 60, 70]
    assert resident.loads == 9


def test_a_block_always_fits() -> None:
    resident = frames(100, 0, at_once=8)
    wanted = list(range(20, 28))
    assert numbers(resident, wanted) == wanted
    assert resident.capacity == 8


def test_the_memory_is_the_settings_or_a_share_of_the_device() -> None:
    assert resident_bytes(torch.device("cpu"), 3) == 3 << 20
    assert resident_bytes(torch.device("cpu"), None) == HOST_BYTES
