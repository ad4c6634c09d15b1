"""Indices of MediaPipe's 468-point face mesh and its 10 iris points (478 points together).

"Right" and "left" are the subject's: the right eye (33 outer, 133 inner) is on the image's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _indices(text: str) -> NDArray[np.int64]:
    return np.array([int(word) for word in text.split()], dtype=np.int64)


N_MESH = 468
"""Points of the face mesh."""
N_POINTS = 478
"""Face mesh and iris points: 468..472 the right iris, 473..477 the left (each: centre, then
its rim at the image's right, top, left, bottom)."""

IRIS_RIGHT = np.arange(468, 473)
IRIS_LEFT = np.arange(473, 478)

EYE_OUTER = (33, 263)
"""Outer corners of the right and left eye; their distance is the unit of every relative measure."""

FACE_OVAL = _indices(
    "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 152 148 176 149 150 136 172 "
    "58 132 93 234 127 162 21 54 103 67 109"
)
EYE_RIGHT = _indices("33 7 163 144 145 153 154 155 133 246 161 160 159 158 157 173")
EYE_LEFT = _indices("263 249 390 373 374 380 381 382 362 466 388 387 386 385 384 398")
LIPS = _indices(
    "61 146 91 181 84 17 314 405 321 375 291 185 40 39 37 0 267 269 270 409 78 95 88 178 87 14 317 402 "
    "318 324 308 191 80 81 82 13 312 311 310 415"
)
LIPS_REFINED = _indices(
    "61 146 91 181 84 17 314 405 321 375 291 185 40 39 37 0 267 269 270 409 78 95 88 178 87 14 317 402 318 "
    "324 308 191 80 81 82 13 312 311 310 415 76 77 90 180 85 16 315 404 320 307 306 184 74 73 72 11 302 303 "
    "304 408 62 96 89 179 86 15 316 403 319 325 292 183 42 41 38 12 268 271 272 407"
)
"""Numbers in the face mesh of the attention mesh's 80 lip points: those of ``LIPS`` in its order, then
the ring inside the lips' outer contour and the ring outside the inner one."""
JAW_POINTS = _indices(
    "18 32 43 57 58 83 106 135 136 138 140 148 149 150 152 169 170 171 172 175 176 182 186 192 194 199 200 "
    "201 202 204 208 210 211 212 213 214 215 262 273 287 288 313 335 364 365 367 369 377 378 379 394 395 396 "
    "397 400 406 410 416 418 421 422 424 428 430 431 432 433 434 435"
)
"""Points of the face mesh beside the lips that a jaw carries with it when it drops."""
JAW_SHARES = 0.01 * _indices(
    "98 66 25 19 12 94 54 28 37 17 70 91 61 47 99 41 53 88 23 95 79 76 10 13 70 92 93 88 34 48 85 36 49 22 "
    "10 17 10 66 25 19 12 94 54 28 37 17 70 91 61 47 41 53 88 23 79 76 10 13 70 88 34 48 85 36 49 22 10 17 "
    "10"
)
"""Displacement of each of ``JAW_POINTS`` over that of the lower lip's middle: the skinning of the embedded
head at these points."""
LOWER_LIP_MIDDLE = np.array([84, 17, 314])
"""The lower lip's outer edge at its middle."""
UPPER_LIP_INNER, LOWER_LIP_INNER = 13, 14
"""The lips' inner edges at their middle."""
BROWS = _indices("70 63 105 66 107 55 65 52 53 46 300 293 334 296 336 285 295 282 283 276")

# Where the 71 points of the iris model's eye contour (eye, lids, brow) lie in the face mesh.
EYE_CONTOUR_RIGHT = _indices(
    "33 7 163 144 145 153 154 155 133 246 161 160 159 158 157 173 130 25 110 24 23 22 26 112 243 247 30 "
    "29 27 28 56 190 226 31 228 229 230 231 232 233 244 113 225 224 223 222 221 189 35 124 46 53 52 65 "
    "143 111 117 118 119 120 121 128 245 156 70 63 105 66 107 55 193"
)
AROUND_EYES = 48
"""The first so many of the 71 points are lids, corners and the two rings around them; the others are brow and
cheek."""
EYE_CONTOUR_LEFT = _indices(
    "263 249 390 373 374 380 381 382 362 466 388 387 386 385 384 398 359 255 339 254 253 252 256 341 463 "
    "467 260 259 257 258 286 414 446 261 448 449 450 451 452 453 464 342 445 444 443 442 441 413 265 353 "
    "276 283 282 295 372 340 346 347 348 349 350 357 465 383 300 293 334 296 336 285 417"
)

MIDLINE = _indices("0 1 2 4 5 6 8 9 10 11 12 13 14 15 16 17 18 19 94 151 152 164 168 175 195 197 199 200")
"""Points on the face's plane of symmetry."""


def _mirror() -> NDArray[np.int64]:
    # The mesh numbers the midline and the right half first, then the left half in the right half's order.
    right = np.setdiff1d(np.arange(248), MIDLINE)
    left = np.arange(248, N_MESH)
    mirror = np.arange(N_POINTS)
    mirror[right], mirror[left] = left, right
    swapped = IRIS_LEFT[[0, 3, 2, 1, 4]]
    mirror[IRIS_RIGHT], mirror[swapped] = swapped, IRIS_RIGHT
    return mirror


MIRROR = _mirror()
"""The point on the other side of the face for each of the 478 points, ``[478]``."""
