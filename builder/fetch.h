#pragma once
/// What ADD and git contexts bring in from elsewhere: downloads by libcurl, repositories by the
/// `git` program.
///
/// http and https only, along redirects too; sizes and times are bounded. git runs without hooks,
/// prompts, the system's configuration and local or external transports, and what it checks out is
/// only read as a closed tree.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "builder/build.h"
#include "builder/tree.h"

namespace builder {

struct FetchLimits {
  std::string folder;  ///< Where files go; the caller removes it.
  Cancellation& cancellation;
  bool keep_git_dir = false;  ///< Of a repository: `.git` is part of the tree.
};

struct FetchedFile {
  std::string name;  ///< The URL's last piece; may be empty.
  std::shared_ptr<const Tree> tree;
  std::string path;  ///< In `tree`.
  int64_t modified_s = 0;
};

/// `checksum` is `sha256:…` or empty. InvalidArgument if the content has another one.
base::Result<FetchedFile> fetch_url(const std::string& url, const std::string& checksum,
                                    const FetchLimits& limits);

/// The tree of the ref with its submodules, or of the folder in it that the address names.
/// `checksum`: a commit that it must be, or empty. A password in the address reaches git by its
/// environment, and no file.
base::Result<std::shared_ptr<const Tree>> fetch_git(const std::string& address,
                                                    const std::string& checksum,
                                                    const FetchLimits& limits);

struct Fetched {
  std::vector<FetchedFile> files;
  std::shared_ptr<const Tree> git;
};

}  // namespace builder
