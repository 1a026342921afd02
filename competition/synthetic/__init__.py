"""The generator of synthetic competitions, in the file format of the real one.

generate    the folder              plan        the list of images          contact     the contact sheet
render      an image                kernels     its inner loops             materials   colours of surfaces
scenes      rooms, clothes, light   cameras     the four cameras, crops     compiled    numba's cache
poses       movement over time      postures    keyframes of each action
skeletons   from angles to joints   bones       lengths and the rest pose
bodies      the skinned surface     flesh       its parts                   surfaces    meshes of distance fields
"""
