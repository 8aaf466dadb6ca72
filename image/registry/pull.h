#pragma once
/// An image from a registry into the store: manifests first, then all blobs at once, each verified
/// while it comes; layers this machine may run become disks in the same pass.
///
/// What a broken pull brought stays for a day under a lease named after the reference, and the next
/// pull of it goes on from there. Lies about digests, sizes or media types end the pull, and leave
/// nothing.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/manifest.h"
#include "image/registry/access.h"
#include "image/registry/http.h"
#include "image/store.h"

namespace image::registry {

struct PullRequest {
  std::string reference;
  std::optional<Platform> platform;  ///< Only this one; absent: all that the image has.
  Platform own;        ///< This machine's: its layers become disks where no platform is named.
  std::string digest;  ///< If set, what the reference must lead to.
  /// If set, this keeps what comes, and no name of the store leads to it.
  Lease* keeper = nullptr;
};

struct TransferProgress {
  uint32_t blobs_done = 0;
  uint32_t blobs_total = 0;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
};
/// Called from several threads, one at a time.
using TransferObserver = std::function<void(const TransferProgress&)>;

struct Pulled {
  std::string reference;  ///< Full.
  std::string digest;
  std::string former_digest;  ///< What the name led to before, if that was another.
};

base::Result<Pulled> pull(Store& store, HttpClient& http, const Access& access,
                          const PullRequest& request, const TransferObserver& observer,
                          Cancel& cancel);

/// One manifest or blob of the image, which the store has lost. It stays if something leads to it.
base::Result<> pull_blob(Store& store, HttpClient& http, const Access& access,
                         const std::string& reference, const Descriptor& blob, Cancel& cancel);

/// What `reference` leads to at its registry now. Fetches no content.
base::Result<std::string> remote_digest(HttpClient& http, const Access& access,
                                        const std::string& reference, Cancel& cancel);

/// Whether the store has all that `platform` of the reference needs. NotFound if it does not know
/// the reference.
base::Result<bool> is_here(Store& store, const std::string& reference, const Platform& platform);

/// Asks the registry whether it takes our credentials.
base::Result<> check_login(HttpClient& http, const Access& access, const std::string& registry,
                           Cancel& cancel);

}  // namespace image::registry
