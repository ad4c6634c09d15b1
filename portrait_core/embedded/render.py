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
from portrait_core.faces.raster import Fragments, rasterize, vertex_normals

IMAGE_SIZE = 256
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


@dataclass(frozen=True)
class Visible:
    """Pixels ``[n]`` (row major) that show a mesh inside the box, with the face, its vertices ``[n,3]``, the
    barycentric weights ``[n,3]`` and the depth along the optical axis ``[n]``."""

    pixel: NDArray[np.int64]
    face: NDArray[np.int64]
    corner: NDArray[np.int64]
    weight: Array
    depth: Array


@dataclass(frozen=True)
class Drawn:
    """Shaded pixels: colour ``[n,3]``, opacity ``[n]``, depth ``[n]``, extra attributes ``[n,k]``."""

    pixel: NDArray[np.int64]
    colour: Array
    opacity: Array
    depth: Array
    extra: Array


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
        self._eye_face = np.isin(np.pad(self._group, (0, len(self.torso.faces))), (1, 2))
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
            hair=hair_colour(scene), landmarks=landmarks,
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
        split, size = self.n_head + self.n_torso, IMAGE_SIZE
        with torch.no_grad():
            pixels = project_to_crop(label, torch.from_numpy(person.points)[None], size)
            base = rasterize(pixels[:, :split], self._base_faces, size, size, cull_backfaces=True)
            hair = rasterize(pixels[:, split:], self._hair_faces, size, size)
        rgba = np.zeros((size * size, 4), dtype=np.float32)
        depth = np.full(size * size, np.inf, dtype=np.float32)
        drawn = self._shade_base(person, visible(base, self._base_faces, camera), camera)
        rgba[drawn.pixel, :3], rgba[drawn.pixel, 3] = drawn.colour, 1.0
        depth[drawn.pixel] = drawn.depth
        drawn = self._shade_hair(person, visible(hair, self._hair_faces, camera), camera)
        front = drawn.depth < depth[drawn.pixel]
        pixel, opacity = drawn.pixel[front], drawn.opacity[front][:, None]
        over = np.concatenate([drawn.colour[front], np.ones_like(opacity)], 1)
        rgba[pixel] = rgba[pixel] * (1 - opacity) + over * opacity
        solid = opacity[:, 0] > 0.5
        depth[pixel[solid]] = drawn.depth[front][solid]
        depth = depth.reshape(size, size)
        rgba = smooth_edges(rgba.reshape(size, size, 4), depth)
        return self._finish(person, rgba, depth, camera)

    def _shade_base(self, person: Person, seen: Visible, camera: Array) -> Drawn:
        """Colour and depth of head and clothes."""
        split = self.n_head + self.n_torso
        eye = camera[:16].reshape(4, 4)[:3, 3]
        gloss = person.gloss[:split] * person.shadow[:split]
        sheen = skin_sheen(person.points[:split], person.normals[:split], eye, person.light, gloss)
        table = np.concatenate([person.colour[:split], sheen, person.texture[:split]], 1)
        drawn = paint(person.atlas, table.astype(np.float32), seen)
        eyes = np.flatnonzero(self._eye_face[seen.face])
        if len(eyes):
            glint = eye_glint(
                person.points, person.normals, seen.corner[eyes], seen.weight[eyes], eye, person.light
            )
            drawn.colour[eyes] += glint[:, None]
        return drawn

    def _shade_hair(self, person: Person, seen: Visible, camera: Array) -> Drawn:
        """Colour, opacity and depth of the hair sheet; its inside is darker."""
        split = self.n_head + self.n_torso
        eye = camera[:16].reshape(4, 4)[:3, 3]
        points, normals = person.points[split:], person.normals[split:]
        outside = smoothstep(-0.15, 0.05, (normals * (eye - points)).sum(1))[:, None]
        lit = person.colour[split:] * (0.45 + 0.55 * outside)
        sheen = strand_sheen(points, person.tangents, eye, person.light, person.hair, person.shadow[split:])
        table = np.concatenate([lit, sheen * outside, person.texture[split:], person.hair_fade[:, None]], 1)
        drawn = paint(person.atlas, table.astype(np.float32), seen)
        fade = drawn.extra[:, 0]
        drawn.opacity[:] = np.clip((fade - 1 + drawn.opacity) * 3.0 + fade * 1.2, 0, 1)
        return drawn

    def _finish(self, person: Person, rgba: Array, depth: Array, camera: Array) -> View:
        """Lay the foreground over the wall and collect the labels."""
        alpha = rgba[..., 3:]
        image = rgba[..., :3] + (1 - alpha) * wall_view(person.wall, camera, IMAGE_SIZE)
        points = np.stack([person.landmarks[list(pair)].mean(0) for pair in KEY_POINTS]).astype(np.float32)
        px = project_to_crop(torch.from_numpy(camera)[None], torch.from_numpy(points)[None], 1)[0, :, :2]
        return View(
            image=(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8),
            alpha=(alpha[..., 0] * 255 + 0.5).astype(np.uint8),
            depth=ray_depth(depth).astype(np.float16),
            camera=camera.astype(np.float32),
            key_points=px.numpy().astype(np.float32),
        )


def smooth_edges(rgba: Array, depth: Array) -> Array:
    """Soften the outline and inner depth edges of a picture drawn with one sample a pixel.

    ``rgba [S,S,4]`` has colour times coverage. A 3x3 blur of the coverage of a smooth outline is close to
    the share of each pixel that it covers, so this stands in for supersampling at a third of its cost.
    """
    blurred = cv2.GaussianBlur(rgba, (3, 3), 0.65)
    near = np.where(np.isfinite(depth), depth, 9.0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    step = cv2.dilate(near, kernel) - cv2.erode(near, kernel)
    edge = smoothstep(0.02, 0.06, step)[..., None].astype(np.float32)
    return np.clip(rgba + edge * (blurred - rgba), 0, 1)


def ray_depth(depth: Array) -> Array:
    """Distance along the ray ``[S/2,S/2]`` from depth along the optical axis ``[S,S]`` (inf where empty).

    A pixel of the result has its centre on the corner of four of the input: their mean where they lie on one
    surface, else the nearest of those that cover at least half of it; 0 where there is no foreground.
    """
    size = depth.shape[0] // 2
    four = depth.reshape(size, 2, size, 2).transpose(0, 2, 1, 3).reshape(size, size, 4)
    ordered = np.sort(four, -1)
    whole = np.where(np.isfinite(ordered[..., 3]), ordered[..., 3], 1e3) - ordered[..., 0] < 0.03
    value = np.where(whole, np.where(np.isfinite(four), four, 0).mean(-1), ordered[..., 1])
    x = ((np.arange(size) + 0.5) / size - 0.5) / FOCAL
    stretch = np.sqrt(1 + x[None] ** 2 + x[:, None] ** 2)
    return np.where(np.isfinite(value), np.where(np.isfinite(value), value, 0.0) * stretch, 0.0)


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


def visible(fragments: Fragments, faces: torch.Tensor, camera: Array) -> Visible:
    """The pixels where a mesh is seen inside the generator's box."""
    face = fragments.face_id[0].reshape(-1)
    pixel = (face >= 0).nonzero()[:, 0]
    depth = fragments.depth[0].reshape(-1)[pixel].numpy()
    pose, size = camera[:16].reshape(4, 4), fragments.face_id.shape[-1]
    index = pixel.numpy()
    at = np.stack([index % size, index // size], 1).astype(np.float32)
    local = np.concatenate([((at + 0.5) / size - 0.5) / FOCAL, np.ones_like(at[:, :1])], 1)
    point = (local * depth[:, None]) @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3]
    inside = (np.abs(point) <= BOX_HALF).all(1)
    if inside.all():
        return _gather(fragments, faces, pixel, depth)
    return _gather(fragments, faces, pixel[torch.from_numpy(inside)], depth[inside])


def _gather(fragments: Fragments, faces: torch.Tensor, pixel: torch.Tensor, depth: Array) -> Visible:
    face = fragments.face_id[0].reshape(-1)[pixel]
    weight = fragments.bary[0].reshape(-1, 3)[pixel].numpy()
    return Visible(pixel.numpy(), face.numpy(), faces[face].numpy(), weight, depth)


def paint(atlas: Array, table: Array, seen: Visible) -> Drawn:
    """Interpolate a vertex table ``[N, 3 lit + 3 sheen + 2 atlas + k]`` and multiply the lit colour by the
    atlas; the atlas's fourth channel becomes the opacity."""
    value = torch.from_numpy(table)
    corner, weight = torch.from_numpy(seen.corner), torch.from_numpy(seen.weight)
    out = sum(value[corner[:, k]] * weight[:, k : k + 1] for k in range(3)).numpy()
    detail = lookup(atlas, out[:, 6:8])
    colour = out[:, :3] * detail[:, :3] + out[:, 3:6]
    return Drawn(seen.pixel, colour, detail[:, 3].copy(), seen.depth, out[:, 8:])


def lookup(atlas: Array, at: Array, width: int = 512) -> Array:
    """Bilinear samples ``[n,C]`` of an image at (column, row) ``[n,2]``."""
    rows = -(-len(at) // width)
    padded = np.zeros((rows * width, 2), dtype=np.float32)
    padded[: len(at)] = at
    grid = padded.reshape(rows, width, 2)
    if not rows:
        return np.zeros((0, atlas.shape[-1]), dtype=np.float32)
    out = cv2.remap(atlas, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(rows * width, -1)[: len(at)])


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
