"""The embedded competition: people that no one filmed, in the files of the real one.

generate    the folder              plan        which images there are      contact     the contact sheet
render      a picture               kernels     its inner loops             materials   the colour at a place
scenes      rooms, clothes, light   cameras     the four, and the crop      compiled    numba's cache
poses       movement over time      postures    what each action looks like
skeletons   angles to joints        bones       lengths and the rest pose
bodies      the skinned surface     flesh       its parts                   surfaces    distance fields, meshed
"""
