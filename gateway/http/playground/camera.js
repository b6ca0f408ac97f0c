// The camera of this device.

/**
 * Turn the camera on, and show it in a video element. Returns a function that turns it off.
 *
 * Throws Error, in words, if there is no camera to be had.
 */
export async function openCamera(video) {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new Error(
      "Browsers give the camera only to pages that come over https, or from this machine itself " +
      "(http://127.0.0.1 or http://localhost). This page came over http from another machine.");
  }
  const wanted = { video: { width: { ideal: 1280 }, facingMode: "user" } };
  const stream = await navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
    throw new Error(WORDS[error.name] ?? `The camera does not start: ${error.message}`);
  });
  video.srcObject = stream;
  await video.play();
  return () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
}

const WORDS = {
  NotAllowedError: "This browser does not give the camera to this page. Allow it in the site's settings.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is in use by another program.",
};
