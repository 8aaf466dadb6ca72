#include "api/build_images.h"

#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/text.h"
#include "base/units.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/registry/pull.h"
#include "image/registry/push.h"

namespace api {
namespace {

using base::ErrorCode;
using base::Result;
namespace registry = image::registry;

constexpr int64_t note_interval_ns = 1'000'000'000;

std::string line_of(const registry::TransferProgress& now) {
  return fmt::format("{} of {} blobs, {} of {}", now.blobs_done, now.blobs_total,
                     base::format_bytes(now.bytes_done), base::format_bytes(now.bytes_total));
}

/// For one transfer: it ends with the build, but one that fails, and so gives up what else belongs
/// to it, does not end the build.
class TransferCancel {
 public:
  explicit TransferCancel(registry::Cancel& build)
      : build_(build), token_(build.on_cancel([this] { own_.cancel(); })) {}
  ~TransferCancel() { build_.forget(token_); }
  TransferCancel(const TransferCancel&) = delete;
  TransferCancel& operator=(const TransferCancel&) = delete;
  registry::Cancel& own() { return own_; }

 private:
  registry::Cancel& build_;
  registry::Cancel own_;
  const uint64_t token_;
};

/// A line every second, for as long as it lasts; `latest` is what there was at its end.
registry::TransferObserver notes_of(const builder::StepNote& note,
                                    registry::TransferProgress& latest) {
  return [&note, &latest, next_ns = base::boottime_ns() + note_interval_ns](
             const registry::TransferProgress& now) mutable {
    latest = now;
    const int64_t time = base::boottime_ns();
    if (time < next_ns) return;
    next_ns = time + note_interval_ns;
    note(line_of(now));
  };
}

}  // namespace

Result<std::unique_ptr<BuildImages>> BuildImages::create(image::Images& images,
                                                         RegistryService& registries,
                                                         const BuildOrder& order, TellLine tell,
                                                         builder::Cancellation& cancellation) {
  std::unique_ptr<BuildImages> made(new BuildImages(images, registries, order));
  made->access_ =
      TRY(TaskAccess::create(registries.desk(), order.access, std::move(tell), made->cancel_));
  made->listening_ = cancellation.on_cancel([cancel = &made->cancel_] { cancel->cancel(); });
  return made;
}

/// With the user's own registry in front, where the reference names none.
std::string BuildImages::named(const std::string& reference) const {
  constexpr std::string_view usual = "docker.io";
  const auto parsed = image::parse_reference(reference);
  const bool names_one = !parsed || parsed->domain != usual ||
                         reference.starts_with("docker.io/") ||
                         reference.starts_with("index.docker.io/");
  if (order_.registry.empty() || names_one || reference.starts_with("sha256:")) return reference;
  return order_.registry + "/" + reference;
}

bool BuildImages::is_here(const std::string& reference, const image::Platform& platform) const {
  const auto here = registry::is_here(images_.store(), reference, platform);
  return here ? *here : images_.digest_of(reference).has_value();
}

Result<image::Descriptor> BuildImages::fetch(const builder::ImageWanted& wanted,
                                             const builder::StepNote& note) {
  std::string reference = named(wanted.reference);
  const bool by_digest = reference.starts_with("sha256:");
  // What was made here under the bare name is meant as well.
  if (!wanted.always && !is_here(reference, wanted.platform) &&
      is_here(wanted.reference, wanted.platform))
    reference = wanted.reference;
  if (!by_digest && (wanted.always || !is_here(reference, wanted.platform))) {
    const registry::Access access = TRY(access_->for_image(reference));
    registry::TransferProgress latest;
    TransferCancel cancel(cancel_);
    registry::PullRequest request;
    request.reference = reference;
    request.platform = wanted.platform;
    const registry::Pulled pulled = TRY_DURING(
        registries_.pull_image(std::move(request), access, notes_of(note, latest), cancel.own()),
        "pull '{}' for {}", base::escape_controls(reference), wanted.platform.text());
    note(fmt::format("pulled {} ({}): {}", pulled.reference, pulled.digest, line_of(latest)));
  }
  return image::descriptor_from_json(TRY(images_.inspect(reference)).at("descriptor"));
}

Result<image::Descriptor> BuildImages::fetch_cache(const std::string& reference,
                                                   image::Lease& lease,
                                                   const builder::StepNote& note) {
  const registry::Access access = TRY(access_->for_image(reference));
  registry::TransferProgress latest;
  TransferCancel cancel(cancel_);
  registry::PullRequest request;
  request.reference = reference;
  request.keeper = &lease;
  const registry::Pulled pulled =
      TRY(registries_.pull_image(std::move(request), access, notes_of(note, latest), cancel.own()));
  note(fmt::format("pulled {}: {}", pulled.digest, line_of(latest)));
  const uint64_t size = TRY(images_.store().size_of(pulled.digest));
  return image::Descriptor{
      .media_type = image::manifest_media_type, .digest = pulled.digest, .size = size};
}

Result<> BuildImages::push_cache(const std::string& reference, const image::Descriptor& packed,
                                 const builder::StepNote& note) {
  const registry::Access access = TRY(access_->for_image(reference));
  registry::TransferProgress latest;
  TransferCancel cancel(cancel_);
  const registry::Pushed pushed =
      TRY(registries_.push_image({.reference = reference, .platform = {}, .root = packed}, access,
                                 notes_of(note, latest), cancel.own()));
  note(fmt::format("pushed {}: {} blobs sent, {} were there", pushed.digest, pushed.blobs_sent,
                   pushed.blobs_mounted + pushed.blobs_present));
  return {};
}

}  // namespace api
