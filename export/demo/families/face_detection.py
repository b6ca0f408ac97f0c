"""The face detector in the demo. The measures and rows of `gaze` show its answers, too."""

from export.demo.family import DemoFamily

FAMILY = DemoFamily(name="face_detection", place=4, training="export.demo.train_face_detection")
