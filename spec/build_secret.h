#pragma once
/// What a build's steps may read while they run. Beside the Stack, not in it: a Stack travels to
/// the daemon and is kept there, and neither a secret nor its place is anybody's business there.

#include <cstdint>
#include <optional>
#include <string>

namespace spec {

/// A secret of a service's `build.secrets`, and where its bytes are.
struct BuildSecret {
  std::string id;                    ///< As `RUN --mount=type=secret,id=…` calls it.
  std::string file;                  ///< Absolute; empty: of a variable.
  std::string variable;              ///< Name of an environment variable.
  std::optional<std::string> value;  ///< Of the variable; absent where it is not set.
  /// Of the file in the step, where the Dockerfile says nothing itself.
  std::optional<uint32_t> mode;
  std::optional<uint32_t> user;
  std::optional<uint32_t> group;
};

}  // namespace spec
