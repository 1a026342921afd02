"""The embedded competition: people that no one filmed, in the files of the real one.

surfaces    distance fields and their meshes
bodies      one parametric body: bones, a smooth surface, its skin weights
skeletons   angles to joints and frames        poses       what people do over time
cameras     the four cameras and the crop      scenes      rooms, furniture, clothes, light
materials   the colour at a place              render      a z-buffer and its shading
plan        which images there are             generate    the folder
"""
