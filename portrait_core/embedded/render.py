"""Draw a synthetic person: head, hair, shoulders and collar, lit, over a background wall.

The mesh work of a person is done once (:meth:`SceneRenderer.person`) and shared by its views.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.cameras import FOCAL, project_to_crop
from portrait_core.embedded import albedo
from portrait_core.embedded.appearance import (
    WALL_HALF,
    WALL_Z,
    Light,
    cloth_colour,
    clothing_of,
    hair_colour,
    hair_style,
    light_of,
    lip_colour,
    paint_of,
    skin_colour,
    wall_picture,
)
from portrait_core.embedded.hair import CENTRE_M, TILT_RAD, HairSheet
from portrait_core.embedded.latents import Scene
from portrait_core.embedded.lighting import diffuse, eye_glint, key_shadow, skin_sheen, strand_sheen
from portrait_core.embedded.surfaces import Array, Skin, smoothstep
from portrait_core.embedded.torso import Torso
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.raster import Fragments, interpolate, rasterize, vertex_normals

IMAGE_SIZE = 256
DEPTH_SIZE = 128
RASTER_SIZE = 384
"""Drawn at 1.5 times the picture's size; the centre of every third pixel is a depth sample."""
BOX_HALF = 0.36
"""Half of the generator's box: nothing outside it is foreground."""
KEY_POINTS = ((13, 14), (159, 145), (386, 374))


@dataclass(frozen=True)
class Person:
    """Everything about a scene that its views share; positions in box units."""

    points: Array  # [N,3] head, then shoulders and collar, then hair
    normals: Array  # [N,3]
    colour: Array  # [N,3] lit, without highlights
    gloss: Array  # [N] strength of the skin's highlight
    texture: Array  # [N,2] atlas column, row
    hair_fade: Array  # [H]
    tangents: Array  # [H,3] along the strands
    atlas: Array
    wall: NDArray[np.uint8]
    light: Light
    shadow: Array  # [N]
    hair: Array  # [3] colour
    landmarks: Array  # [478,3] box units
    eye_openness: float


@dataclass(frozen=True)
class View:
    """One picture of a person.

    image ``[256,256,3]`` u8; alpha ``[256,256]`` u8 coverage by the foreground; depth ``[128,128]`` f16
    along the ray from the camera in box units, 0 where there is no foreground; camera ``[25]`` f32;
    key_points ``[3,2]`` f32: mouth, right eye, left eye in 0..1 of the picture.
    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    depth: NDArray[np.float16]
    camera: Array
    key_points: Array


class SceneRenderer:
    """Holds the head, the fixed topology and the fixed masks."""

    def __init__(self, head: MorphableHead) -> None:
        self.head = head
        buffers = {name: b.cpu().numpy() for name, b in head.named_buffers()}
        self._group = buffers["face_group"]
        faces = buffers["f"]
        self._masks = {name: head.mask(name).cpu().numpy() for name in head.masks}
        self._sky = buffers["sky_visibility"]
        template = buffers["v_template"]
        self._template = template
        self._vertex_group = np.zeros(len(template), dtype=np.int64)
        for g in range(len(head.group_names)):
            self._vertex_group[faces[self._group == g].reshape(-1)] = g
        body = self._vertex_group == 0
        outer = body & (self._masks["inside_mouth"] < 0.5) & (self._masks["ears"] < 0.3)
        skin = Skin(template[outer], np.flatnonzero(outer))
        triangles = faces[(self._group == 0) & (outer[faces].all(1))]
        self.hair, self.torso = HairSheet(skin, template[triangles]), Torso(skin)
        self.n_head, self.n_torso = len(template), self.torso.n_shoulder + self.torso.collar_rows * 56
        landmarks = head.landmarks(torch.from_numpy(template)[None])[0].numpy()
        self.painter = albedo.Painter(landmarks)
        self._texture = self._texture_coordinates(template)
        base = np.concatenate([faces, self.torso.faces + self.n_head])
        self._base_faces = torch.from_numpy(base.astype(np.int64))
        self._hair_faces = torch.from_numpy(self.hair.faces)
        self._all_faces = torch.from_numpy(
            np.concatenate([base, self.hair.faces + self.n_head + self.n_torso]).astype(np.int64)
        )
        self._eye_face = torch.from_numpy(np.isin(np.pad(self._group, (0, len(self.torso.faces))), (1, 2)))
        self._crown_polar, self._crown_azimuth = crown_angles(template)

    def _texture_coordinates(self, template: Array) -> Array:
        """Atlas coordinates of every vertex (head, torso, hair)."""
        head = albedo.skin_coordinates(template)
        for group in (1, 2):
            eye = self._vertex_group == group
            head[eye] = albedo.eye_coordinates(template[eye] - template[eye].mean(0))
        inside = (self._vertex_group > 2) | (self._masks["inside_mouth"] > 0.6)
        head[inside] = (4.0, 0.0)  # a blank texel of the skin's first row
        rows = [
            (i / 7.0, c / 56)
            for i in range(self.torso.shoulder_rows + self.torso.collar_rows)
            for c in range(56)
        ]
        cloth = np.array([(abs(2 * c - 1), r % 1.0) for r, c in rows], dtype=np.float32)
        torso = albedo.tile_coordinates(cloth, albedo.CLOTH_ORIGIN, albedo.CLOTH_SIZE)
        hair = albedo.tile_coordinates(self.hair.texture_uv, albedo.HAIR_ORIGIN, albedo.HAIR_SIZE)
        return np.concatenate([head, torso, hair])

    def person(self, scene: Scene) -> Person:
        """Decode, dress and light a scene."""
        head = self.head
        shape, expression = torch.from_numpy(scene.full_shape()), torch.from_numpy(scene.expression)[None]
        with torch.no_grad():
            calm = head.decode(shape, torch.zeros_like(expression))[0].numpy()
            posed = head.decode(shape, expression, head.jaw_from_expression(expression))
            head_normals = vertex_normals(posed, head.faces)[0].numpy()
            landmarks = head.to_box(head.landmarks(posed))[0].numpy()
        moved = calm - self._template
        style = hair_style(scene)
        torso, torso_normals = self.torso.build(clothing_of(scene), moved)
        hair, hair_normals = self.hair.build(style, moved)
        metres = np.concatenate([posed[0].numpy(), torso, hair])
        normals = np.concatenate([head_normals, torso_normals, hair_normals])
        points = head.to_box(torch.from_numpy(metres)).numpy()
        light = light_of(scene)
        shadow = key_shadow(points, self._all_faces, light.toward)
        base, occlusion, gloss = self._materials(scene, metres[: self.n_head], landmarks)
        shadow = np.where(self._inside_mouth(len(shadow)), 0.75, shadow)
        colour = base * diffuse(normals, light, occlusion, shadow)
        strands = np.gradient(hair.reshape(-1, self.hair.azimuth.size, 3), axis=0).reshape(-1, 3)
        strands = strands / (np.linalg.norm(strands, axis=1, keepdims=True) + 1e-9)
        return Person(
            points=points, normals=normals, colour=colour.astype(np.float32), gloss=gloss,
            texture=self._texture, hair_fade=self.hair.edge_fade(style), tangents=strands.astype(np.float32),
            atlas=self.painter.paint(paint_of(scene)), wall=wall_picture(scene), light=light, shadow=shadow,
            hair=hair_colour(scene), landmarks=landmarks, eye_openness=1.0,
        )  # fmt: skip

    def _inside_mouth(self, total: int) -> NDArray[np.bool_]:
        inside = (self._vertex_group > 2) | (self._masks["inside_mouth"] > 0.6)
        return np.pad(inside, (0, total - self.n_head))

    def _materials(self, scene: Scene, head_m: Array, landmarks: Array) -> tuple[Array, Array, Array]:
        """Albedo ``[N,3]``, occlusion ``[N]`` and gloss ``[N]`` of every vertex."""
        skin, hair, mask = skin_colour(scene), hair_colour(scene), self._masks
        albedo_head = np.repeat(skin[None], self.n_head, 0)

        def blend(weight: Array, colour: Array | tuple[float, float, float]) -> None:
            nonlocal albedo_head
            albedo_head = albedo_head * (1 - weight[:, None]) + weight[:, None] * np.asarray(colour)

        scalp, style = self._scalp(scene)
        blend(0.75 * scalp * float(smoothstep(0.02, 0.16, style)), hair * 0.9)
        blend(0.5 * mask["ears"] * (1 - scalp), skin * (1.02, 0.88, 0.86))
        blend(np.clip(mask["lips"] * 1.15, 0, 1), lip_colour(scene, skin))
        blend(0.22 * mask["eyelids"], skin * (0.85, 0.74, 0.74))
        lash = 0.55 + 0.4 * scene.share("lash")
        blend(
            np.clip(lash * np.maximum(mask["lashes_2"], 0.45 * mask["lashes_1"]), 0, 0.95), np.full(3, 0.03)
        )
        blend(np.clip((mask["inside_mouth"] - 0.35) / 0.3, 0, 1), (0.45, 0.15, 0.14))
        for group, colour in ((1, (1, 1, 1)), (2, (1, 1, 1)), (3, (0.93, 0.90, 0.83)), (4, (0.90, 0.87, 0.80)),
                              (5, (0.68, 0.32, 0.31))):  # fmt: skip
            albedo_head[self._vertex_group == group] = colour
        occlusion = 0.25 + 0.75 * np.clip(self._sky * 1.45, 0, 1)
        inside = (self._vertex_group > 2) | (mask["inside_mouth"] > 0.4)
        lips_z = np.percentile(head_m[(mask["lips"] > 0.5) & (self._vertex_group == 0), 2], 85)
        falloff = np.exp(-np.clip(lips_z - head_m[:, 2] - 0.007, 0, None) / 0.020)
        occlusion = np.where(inside, falloff, occlusion)
        eyes = np.isin(self._vertex_group, (1, 2))
        occlusion = np.where(eyes, 0.45 + 0.55 * np.clip(self._sky * 1.6, 0, 1), occlusion)
        cloth = np.repeat(cloth_colour(scene)[None], self.n_torso, 0)
        shoulders_occlusion = np.full(self.n_torso, 0.9)
        n_hair = len(self.hair.texture_uv)
        hairs = np.repeat(hair[None], n_hair, 0)
        gloss = np.concatenate([np.where(self._vertex_group == 0, 0.10 + 0.10 * mask["lips"], 0.12) * (1 - scalp),
                                np.zeros(self.n_torso + n_hair)])  # fmt: skip
        gloss = np.where(self._inside_mouth(len(gloss)), 0.05, gloss)
        return (np.concatenate([albedo_head, cloth, hairs]),
                np.concatenate([occlusion, shoulders_occlusion, np.ones(n_hair)]),
                gloss)  # fmt: skip

    def _scalp(self, scene: Scene) -> tuple[Array, float]:
        """How far each head vertex lies under hair ``[V]``, and the length quantile."""
        style = hair_style(scene)
        reach, _ = self.hair.reach(style)
        end = np.interp(self._crown_azimuth, self.hair.azimuth, reach, period=2 * np.pi)
        under = smoothstep(0.03, -0.10, self._crown_polar - end) * (self._vertex_group == 0)
        return under * (1 - np.clip(2 * self._masks["ears"], 0, 1)), scene.share("hair_length")

    def view(self, person: Person, camera: Array) -> View:
        """Draw a person from a camera ``[25]``."""
        label = torch.from_numpy(camera)[None]
        size = RASTER_SIZE
        with torch.no_grad():
            pixels = project_to_crop(label, torch.from_numpy(person.points)[None], size)
            split = self.n_head + self.n_torso
            base = rasterize(pixels[:, :split], self._base_faces, size, size, cull_backfaces=True)
            hair = rasterize(pixels[:, split:], self._hair_faces, size, size)
        eye = camera[:16].reshape(4, 4)[:3, 3]
        base_rgb, base_depth = self._shade_base(person, base, camera, eye)
        hair_rgb, hair_alpha, hair_depth = self._shade_hair(person, hair, camera, eye)
        front = hair_depth < base_depth
        hair_alpha = np.where(front, hair_alpha, 0.0)[..., None]
        covered = (base_depth < np.inf).astype(np.float32)[..., None]
        rgba = np.concatenate([base_rgb, covered], -1) * (1 - hair_alpha)
        rgba += np.concatenate([hair_rgb, np.ones_like(covered)], -1) * hair_alpha
        depth = np.where(hair_alpha[..., 0] > 0.5, hair_depth, base_depth)
        return self._finish(person, rgba.astype(np.float32), depth, camera)

    def _shade_base(
        self, person: Person, fragments: Fragments, camera: Array, eye: Array
    ) -> tuple[Array, Array]:
        """Colour ``[S,S,3]`` (black where empty) and depth (inf where empty) of head and clothes."""
        split = self.n_head + self.n_torso
        sheen = skin_sheen(person.points[:split], person.normals[:split], eye, person.light,
                           person.gloss[:split] * person.shadow[:split])  # fmt: skip
        table = np.concatenate([person.colour[:split], sheen, person.texture[:split]], 1).astype(np.float32)
        rgb, depth, _ = self._sample(person, table, self._base_faces, fragments, camera)
        glint = eye_glint(person.points, person.normals, self._base_faces, fragments, self._eye_face, eye,
                          person.light)  # fmt: skip
        return rgb + glint[..., None], depth

    def _shade_hair(
        self, person: Person, fragments: Fragments, camera: Array, eye: Array
    ) -> tuple[Array, Array, Array]:
        """Colour, opacity and depth of the hair sheet."""
        split = self.n_head + self.n_torso
        points, normals = person.points[split:], person.normals[split:]
        away = (normals * (eye - points)).sum(1) < 0
        lit = person.colour[split:] * np.where(away, 0.45, 1.0)[:, None]
        sheen = strand_sheen(points, person.tangents, eye, person.light, person.hair, person.shadow[split:])
        sheen = sheen * ~away[:, None]
        table = np.concatenate([lit, sheen, person.texture[split:], person.hair_fade[:, None]], 1)
        rgb, depth, extra = self._sample(
            person, table.astype(np.float32), self._hair_faces, fragments, camera
        )
        strand, fade = extra[..., 0], extra[..., 1]
        return rgb, np.clip((fade - 1 + strand) * 3.0 + fade * 1.2, 0, 1) * (depth < np.inf), depth

    def _sample(
        self, person: Person, table: Array, faces: torch.Tensor, fragments: Fragments, camera: Array
    ) -> tuple[Array, Array, Array]:
        """Interpolate (lit colour 3, sheen 3, atlas 2, extra) and multiply by the atlas.

        Returns colour, depth (inf where empty or outside the box) and (atlas opacity, extra).
        """
        out = interpolate(torch.from_numpy(table)[None], faces, fragments)[0].numpy()
        paint = cv2.remap(
            person.atlas, out[..., 6], out[..., 7], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        depth = np.where(outside_box(fragments.depth[0].numpy(), camera), np.inf, fragments.depth[0].numpy())
        rgb = (out[..., :3] * paint[..., :3] + out[..., 3:6]) * (depth < np.inf)[..., None]
        extra = np.concatenate([paint[..., 3:], out[..., 8:]], -1)
        return rgb, depth, extra

    def _finish(self, person: Person, rgba: Array, depth: Array, camera: Array) -> View:
        """Shrink, lay over the wall, and collect the labels."""
        small = cv2.resize(rgba, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
        alpha = np.clip(small[..., 3:], 0, 1)
        image = np.clip(small[..., :3], 0, 1) + (1 - alpha) * wall_view(person.wall, camera, IMAGE_SIZE)
        sampled = depth[1::3, 1::3]
        x = (np.arange(DEPTH_SIZE) + 0.5) / DEPTH_SIZE - 0.5
        stretch = np.sqrt(1 + (x[None] ** 2 + x[:, None] ** 2) / FOCAL**2)
        distance = np.where(np.isfinite(sampled), sampled * stretch, 0.0)
        points = np.stack([person.landmarks[list(pair)].mean(0) for pair in KEY_POINTS]).astype(np.float32)
        px = project_to_crop(torch.from_numpy(camera)[None], torch.from_numpy(points)[None], 1)[0, :, :2]
        return View(
            image=(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8),
            alpha=(alpha[..., 0] * 255 + 0.5).astype(np.uint8),
            depth=distance.astype(np.float16),
            camera=camera.astype(np.float32),
            key_points=px.numpy().astype(np.float32),
        )


def crown_angles(points: Array) -> tuple[Array, Array]:
    """Polar angle from the crown and azimuth (0 = front) of points on the average head."""
    direction = points - CENTRE_M
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    c, s = np.cos(TILT_RAD), np.sin(TILT_RAD)
    up = direction[:, 1] * c - direction[:, 2] * s
    forward = direction[:, 1] * s + direction[:, 2] * c
    return np.arccos(np.clip(up, -1, 1)), np.arctan2(direction[:, 0], forward)


def pixel_rays(camera: Array, size: int) -> tuple[Array, Array]:
    """Camera centre ``[3]`` and directions ``[size,size,3]`` scaled to unit depth along the optical axis."""
    pose = camera[:16].reshape(4, 4)
    x = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) / FOCAL
    right, down, forward = pose[:3, :3].T
    direction = x[None, :, None] * right + x[:, None, None] * down + forward
    return pose[:3, 3], direction.astype(np.float32)


def outside_box(depth: Array, camera: Array) -> NDArray[np.bool_]:
    """Whether each pixel's surface lies outside the generator's box (also where there is none)."""
    origin, direction = pixel_rays(camera, depth.shape[0])
    finite = np.where(np.isfinite(depth), depth, 1e3)[..., None]
    return np.asarray((np.abs(origin + direction * finite) > BOX_HALF).any(-1))


def wall_view(wall: NDArray[np.uint8], camera: Array, size: int) -> Array:
    """The background wall as the camera sees it, ``[size,size,3]`` in 0..1: bilinear, border clamped.

    Row 0 of the picture is the wall's top (y = 0.8), column 0 its left (x = -0.8).
    """
    origin, direction = pixel_rays(camera, size)
    hit = origin + direction * ((WALL_Z - origin[2]) / direction[..., 2])[..., None]
    n = wall.shape[0]
    column = (hit[..., 0] / WALL_HALF + 1) / 2 * n - 0.5
    row = (1 - hit[..., 1] / WALL_HALF) / 2 * n - 0.5
    picture = wall.astype(np.float32) / 255.0
    return cv2.remap(picture, column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
