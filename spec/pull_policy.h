#pragma once
/// When `up` asks a registry for the image of a service: `pull_policy`.

namespace spec {

enum class PullPolicy {
  Missing,  ///< When the image is not on this system.
  Always,
  Never,
  Build,  ///< Not at all: it is built again.
};

}  // namespace spec
