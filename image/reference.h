#pragma once
/// Image references: `alpine`, `localhost:5000/team/app:1.2`, `ghcr.io/a/b@sha256:…`.
///
/// Parsing normalises: a missing registry is docker.io, a missing tag is `latest`, official images
/// get `library/`. Where a digest is given it decides and the tag is dropped.

#include <string>
#include <string_view>

#include "base/result.h"

namespace image {

struct Reference {
  std::string domain;  ///< `docker.io`, `localhost:5000`, `[::1]:5000`.
  std::string path;    ///< `library/alpine`.
  std::string tag;     ///< Empty where `digest` is set.
  std::string digest;  ///< `sha256:` and 64 hexadecimal digits, or empty.

  /// `docker.io/library/alpine`.
  std::string repository() const { return domain + "/" + path; }
  /// The full form, which parses to the same reference again.
  std::string full() const;
  /// For people: without `docker.io/` and `library/`.
  std::string display() const;
  bool operator==(const Reference&) const = default;
};

/// InvalidArgument says which part is wrong and what is allowed there.
base::Result<Reference> parse_reference(std::string_view text);

}  // namespace image
