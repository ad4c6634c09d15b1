"""Drawing of a synthetic person: head, hair, shoulders, collar, glasses, lit, before a background plane.

The mesh work of a person is done once (:meth:`SceneRenderer.person`) and shared by its views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.cameras import project_to_crop
from portrait_core.face_model.easing import smoothstep
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import rasterize, vertex_normals
from portrait_core.generators.scene_latents import N_SHAPE, Scene
from portrait_core.tracking.generator_crop import KEY_POINTS
from portrait_core.training import albedo
from portrait_core.training.appearance import (
    Light,
    cloth_colour,
    clothing_of,
    hair_colour,
    hair_style,
    light_of,
    paint_of,
    wall_picture,
)
from portrait_core.training.glasses import GlassesMesh, glasses_presence
from portrait_core.training.hair import HairSheet
from portrait_core.training.lighting import diffuse, eye_glint, key_shadow, skin_sheen, strand_sheen
from portrait_core.training.materials import HeadMaterials
from portrait_core.training.picture import (
    Drawn,
    Visible,
    paint,
    ray_depth,
    smooth_edges,
    visible,
    wall_view,
)
from portrait_core.training.surfaces import Array, Skin
from portrait_core.training.torso import COLUMNS as TORSO_COLUMNS
from portrait_core.training.torso import Torso

IMAGE_SIZE = 256
GLASSES_GLOSS = 0.25
"""Strength of the highlight on frames."""


@dataclass(frozen=True)
class WornGlasses:
    """Glasses on a person: positions (box units), normals and lit colour ``[G,3]``, opacity ``[G]``."""

    points: Array
    normals: Array
    colour: Array
    opacity: Array


@dataclass(frozen=True)
class Person:
    """Data of a scene that its views share; positions in box units."""

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
    glasses: WornGlasses | None


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


def _draw_over(rgba: Array, depth: Array, drawn: Drawn) -> None:
    """Draw what lies in front of a picture ``[P,4]`` (colour times coverage) and its depth ``[P]``, in place.

    What is at least half opaque gives its depth to the pixel.
    """
    front = drawn.depth < depth[drawn.pixel]
    pixel, opacity = drawn.pixel[front], drawn.opacity[front][:, None]
    over = np.concatenate([drawn.colour[front], np.ones_like(opacity)], 1)
    rgba[pixel] = rgba[pixel] * (1 - opacity) + over * opacity
    solid = opacity[:, 0] > 0.5
    depth[pixel[solid]] = drawn.depth[front][solid]


class SceneRenderer:
    """Holds the head, the fixed topology and the fixed masks."""

    def __init__(self, head: MorphableHead) -> None:
        self.head = head
        buffers = {name: b.cpu().numpy() for name, b in head.named_buffers()}
        masks = {name: head.mask(name).cpu().numpy() for name in head.masks}
        faces, face_group, template = buffers["f"], head.face_group.cpu().numpy(), buffers["v_template"]
        self._vertex_group = np.zeros(len(template), dtype=np.int64)
        self._vertex_group[faces.reshape(-1)] = np.repeat(face_group, 3)
        self._identity = buffers["shapedirs"][..., :N_SHAPE].copy()
        self._materials = HeadMaterials(masks, buffers["sky_visibility"], self._vertex_group, template)
        outer = (self._vertex_group == 0) & (masks["inside_mouth"] < 0.5) & (masks["ears"] < 0.3)
        skin = Skin(template[outer], np.flatnonzero(outer))
        self.hair, self.torso = HairSheet(skin, template[faces[outer[faces].all(1)]]), Torso(skin)
        eyes = np.flatnonzero(self._vertex_group == 1), np.flatnonzero(self._vertex_group == 2)
        self.glasses = GlassesMesh(skin, eyes, template)
        self.n_head, self.n_torso = len(template), self.torso.n_vertices
        self._painter = albedo.Painter()
        self._texture = self._texture_coordinates(template)
        base = np.concatenate([faces, self.torso.faces + self.n_head])
        every = np.concatenate([base, self.hair.faces + self.n_head + self.n_torso])
        self._base_faces, self._hair_faces = torch.from_numpy(base), torch.from_numpy(self.hair.faces)
        self._all_faces = torch.from_numpy(every)
        self._glasses_faces = torch.from_numpy(self.glasses.faces)
        self._eye_face = np.isin(np.pad(face_group, (0, len(self.torso.faces))), (1, 2))

    def _texture_coordinates(self, template: Array) -> Array:
        """Return the atlas coordinates of every vertex (head, torso, hair)."""
        head = albedo.skin_coordinates(template)
        for group in (1, 2):
            eye = self._vertex_group == group
            head[eye] = albedo.eye_coordinates(template[eye] - template[eye].mean(0))
        head[self._materials.mouth_interior] = (4.0, 0.0)  # a blank texel of the skin's first row
        for group in (3, 4):
            teeth = self._vertex_group == group
            head[teeth] = albedo.teeth_coordinates(template[teeth], upper=group == 3)
        ring = np.arange(self.n_torso) // TORSO_COLUMNS
        around = np.abs(2 * (np.arange(self.n_torso) % TORSO_COLUMNS) / TORSO_COLUMNS - 1)
        cloth = np.stack([around, ring / 7.0 % 1.0], 1)
        torso = albedo.tile_coordinates(cloth, albedo.CLOTH_ORIGIN, albedo.CLOTH_SIZE)
        hair = albedo.tile_coordinates(self.hair.texture_uv, albedo.HAIR_ORIGIN, albedo.HAIR_SIZE)
        return np.concatenate([head, torso, hair])

    def person(self, scene: Scene) -> Person:
        """Decode, dress and light a scene."""
        head = self.head
        shape, expression = torch.from_numpy(scene.full_shape()), torch.from_numpy(scene.expression)[None]
        with torch.no_grad():
            posed = head.decode(shape, expression, head.jaw_from_expression(expression))
            head_normals = vertex_normals(posed, head.faces)[0].numpy()
            landmarks = head.to_box(head.landmarks(posed))[0].numpy()
        moved = self._identity @ scene.shape  # without the expression
        style = hair_style(scene)
        torso, torso_normals = self.torso.build(clothing_of(scene), moved)
        hair, hair_normals = self.hair.build(style, moved)
        metres = np.concatenate([posed[0].numpy(), torso, hair])
        normals = np.concatenate([head_normals, torso_normals, hair_normals])
        points = head.to_box(torch.from_numpy(metres)).numpy()
        light = light_of(scene)
        shadow = key_shadow(points, self._all_faces, light.toward)
        head_part = self._materials(scene, metres[: self.n_head], self.hair)
        n_hair = len(hair)
        cloth, strand = cloth_colour(scene)[None], hair_colour(scene)[None]
        base = np.concatenate([head_part.albedo, cloth.repeat(self.n_torso, 0), strand.repeat(n_hair, 0)])
        occlusion = np.concatenate([head_part.occlusion, np.full(self.n_torso, 0.9), np.ones(n_hair)])
        # the shadow map is too coarse for the mouth; depth behind the lips shades it
        shadow[: self.n_head][self._materials.mouth_interior] = 0.75
        colour = base * diffuse(normals, light, occlusion, shadow)
        strands = np.asarray(np.gradient(hair.reshape(-1, self.hair.azimuth.size, 3), axis=0)).reshape(-1, 3)
        strands = strands / (np.linalg.norm(strands, axis=1, keepdims=True) + 1e-9)
        return Person(
            points=points,
            normals=normals,
            colour=colour.astype(np.float32),
            gloss=np.pad(head_part.gloss, (0, len(points) - self.n_head)),
            texture=self._texture,
            hair_fade=self.hair.edge_fade(style),
            tangents=strands.astype(np.float32),
            atlas=self._painter.paint(paint_of(scene)),
            wall=wall_picture(scene),
            light=light,
            shadow=shadow,
            hair=hair_colour(scene),
            landmarks=landmarks,
            glasses=self._worn_glasses(scene, moved, light),
        )

    def _worn_glasses(self, scene: Scene, displacement: Array, light: Light) -> WornGlasses | None:
        """Fit glasses to a head displaced ``[V,3]`` from the average; None where the person wears none."""
        presence = glasses_presence(scene)
        if presence == 0:
            return None
        metres, normals = self.glasses.build(displacement)
        points = self.head.to_box(torch.from_numpy(metres)).numpy()
        lit = np.ones(len(points))
        colour = self.glasses.colour * diffuse(normals, light, lit, lit)
        return WornGlasses(points, normals, colour.astype(np.float32), self.glasses.opacity * presence)

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
        _draw_over(rgba, depth, self._shade_hair(person, visible(hair, self._hair_faces, camera), camera))
        if person.glasses is not None:
            _draw_over(rgba, depth, self._shade_glasses(person.glasses, person.light, camera))
        square = depth.reshape(size, size)
        return self._finish(person, smooth_edges(rgba.reshape(size, size, 4), square), square, camera)

    def _shade_base(self, person: Person, seen: Visible, camera: Array) -> Drawn:
        """Return colour and depth of head and clothes."""
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
        """Return colour, opacity and depth of the hair sheet; its inside is darker."""
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

    def _shade_glasses(self, worn: WornGlasses, light: Light, camera: Array) -> Drawn:
        """Return colour, opacity and depth of the glasses."""
        eye = camera[:16].reshape(4, 4)[:3, 3]
        with torch.no_grad():
            pixels = project_to_crop(
                torch.from_numpy(camera)[None], torch.from_numpy(worn.points)[None], IMAGE_SIZE
            )
            seen = visible(
                rasterize(pixels, self._glasses_faces, IMAGE_SIZE, IMAGE_SIZE), self._glasses_faces, camera
            )
        sheen = skin_sheen(worn.points, worn.normals, eye, light, GLASSES_GLOSS * worn.opacity)
        table = np.concatenate([worn.colour + sheen, worn.opacity[:, None]], 1)
        value = (table[seen.corner] * seen.weight[..., None]).sum(1).astype(np.float32)
        return Drawn(seen.pixel, value[:, :3], value[:, 3], seen.depth, value[:, 4:])

    def _finish(self, person: Person, rgba: Array, depth: Array, camera: Array) -> View:
        """Composite the foreground over the background plane and collect the labels."""
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
