#include "builder/fetch.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include <curl/curl.h>
#include <fcntl.h>
#include <csignal>

#include <fmt/format.h>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/process.h"
#include "base/repository.h"
#include "base/sha256.h"
#include "base/text.h"
#include "builder/build_limits.h"
#include "builder/folder_tree.h"
#include "image/registry/curl_on_demand.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

/// For messages: a URL's query and user may hold secrets.
std::string shown(const std::string& url) {
  std::string text = url.substr(0, url.find_first_of("?#"));
  const size_t scheme = text.find("://");
  const size_t at = text.find('@');
  if (scheme != std::string::npos && at != std::string::npos && at < text.find('/', scheme + 3))
    text.erase(scheme + 3, at - scheme - 2);
  return base::escape_controls(text);
}

// ---- downloads ---------------------------------------------------------------------------------

struct Download {
  int fd = -1;
  base::Sha256 hash;
  uint64_t bytes = 0;
  const Cancellation* cancellation = nullptr;
  Result<> outcome;
};

size_t take_bytes(char* bytes, size_t, size_t count, void* data) {
  auto& download = *static_cast<Download*>(data);
  download.bytes += count;
  if (download.bytes > limits::download_bytes_max)
    download.outcome = base::fail(ErrorCode::InvalidArgument, "it is larger than {} bytes",
                                  limits::download_bytes_max);
  if (download.outcome) download.outcome = base::write_all(download.fd, {bytes, count});
  if (!download.outcome) return 0;
  download.hash.update({bytes, count});
  return count;
}

int watch(void* data, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Download*>(data)->cancellation->cancelled() ? 1 : 0;
}

struct EndCurl {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};
using Curl = std::unique_ptr<CURL, EndCurl>;

Result<Curl> open_curl() {
  TRY(image::registry::load_curl());
  Curl curl(curl_easy_init());
  if (!curl) return base::fail(ErrorCode::Internal, "cannot set up a download");
  return curl;
}

void set_up(CURL* curl, const std::string& url, Download& download) {
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, static_cast<long>(limits::redirects_max));
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_FILETIME, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits::connect_timeout_ms));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                   static_cast<long>(limits::download_idle_timeout_s));
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_bytes);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &download);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, watch);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &download);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "container-build");
}

std::string name_in(const std::string& url) {
  const std::string path = url.substr(0, url.find_first_of("?#"));
  const size_t host = path.find("://");
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash < host + 3 ? "" : path.substr(slash + 1);
}

// ---- repositories ------------------------------------------------------------------------------

/// An address without who asks: `https://host/x.git`, and what git puts in front of such instead.
struct AnonymousUrl {
  std::string url;
  std::string clean_base;
  std::string full_base;  ///< Empty: there was nothing to hide.
};

AnonymousUrl without_user(const std::string& url) {
  const size_t host = url.find("://") + 3;
  const size_t slash = url.find('/', host);
  const size_t at = url.rfind('@', slash);
  if (!base::is_web_address(url) || at == std::string::npos || at < host) return {url, {}, {}};
  const std::string scheme = url.substr(0, host);
  const std::string rest = slash == std::string::npos ? "/" : url.substr(slash);
  const std::string name = url.substr(at + 1, slash == std::string::npos ? slash : slash - at - 1);
  return {.url = scheme + name + rest,
          .clean_base = scheme + name + "/",
          .full_base = url.substr(0, slash) + "/"};
}

/// git in `folder`; what it printed.
class Git {
 public:
  Git(std::string folder, AnonymousUrl url, Cancellation& cancellation)
      : folder_(std::move(folder)), url_(std::move(url)), cancellation_(cancellation) {}

  const std::string& url() const { return url_.url; }
  const std::string& folder() const { return folder_; }

  Result<std::string> run(const std::vector<std::string>& words) {
    const std::string output = folder_ + ".out";
    const base::UniqueFd file =
        TRY(base::open_file(output, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW));
    base::SpawnOptions options;
    options.arguments = {"/usr/bin/git",
                         "-C",
                         folder_,
                         "-c",
                         "core.hooksPath=/dev/null",
                         "-c",
                         "protocol.allow=never",
                         "-c",
                         "protocol.https.allow=always",
                         "-c",
                         "protocol.http.allow=always",
                         "-c",
                         "protocol.ssh.allow=always",
                         "-c",
                         "protocol.git.allow=always",
                         "-c",
                         "core.symlinks=true",
                         "-c",
                         "advice.detachedHead=false"};
    options.arguments.insert(options.arguments.end(), words.begin(), words.end());
    options.environment = {"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
                           "GIT_SSH_COMMAND=ssh -o BatchMode=yes",
                           "PATH=/usr/local/bin:/usr/bin:/bin"};
    if (!url_.full_base.empty()) {
      options.environment.push_back("GIT_CONFIG_COUNT=1");
      options.environment.push_back(
          fmt::format("GIT_CONFIG_KEY_0=url.{}.insteadOf", url_.full_base));
      options.environment.push_back("GIT_CONFIG_VALUE_0=" + url_.clean_base);
    }
    for (const char* name : {"HOME", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy"})
      if (const char* value = std::getenv(name))
        options.environment.push_back(fmt::format("{}={}", name, value));
    options.descriptors = {{file.get(), 1}, {file.get(), 2}};
    const auto process = base::spawn(options);
    if (!process && process.error().code() == ErrorCode::NotFound)
      return base::fail(ErrorCode::Unsupported,
                        "git is not installed; install the package 'git' to build from "
                        "repositories");
    return wait(TRY(process), output);
  }

 private:
  Result<std::string> wait(const base::ProcessIdentity& process, const std::string& output) {
    const base::UniqueFd pidfd = TRY(base::open_process(process));
    const auto listening =
        cancellation_.on_cancel([&] { (void)base::signal_process(pidfd.get(), SIGKILL); });
    auto status = base::await_process(pidfd.get(), process.pid,
                                      base::Deadline::in_ms(limits::git_timeout_ms));
    if (!status && status.error().code() == ErrorCode::Timeout) {
      (void)base::signal_process(pidfd.get(), SIGKILL);
      (void)base::await_process(pidfd.get(), process.pid, base::Deadline::never());
    }
    const std::optional<int> code = TRY(std::move(status));
    const std::string text = base::read_file(output, limits::git_output_bytes_max).value_or("");
    if (cancellation_.cancelled()) return base::fail(ErrorCode::Cancelled, "cancelled");
    if (code && *code == 0) return text;
    const size_t end = text.find_last_not_of('\n');
    const size_t line = text.rfind('\n', end);
    return base::fail(
        ErrorCode::Io, "git: {}",
        base::escape_controls(text.substr(line == std::string::npos ? 0 : line + 1, end - line)));
  }

  const std::string folder_;
  const AnonymousUrl url_;
  Cancellation& cancellation_;
};

/// The part of the checked-out tree that an address asks for: clamped, links followed inside.
class SubTree final : public Tree {
 public:
  SubTree(std::unique_ptr<Tree> whole, std::string root, bool keep_git_dir)
      : whole_(std::move(whole)), root_(std::move(root)), keep_git_dir_(keep_git_dir) {}
  Result<Node> node(const std::string& path) const override {
    return whole_->node(TRY(inside(path)));
  }
  Result<std::vector<NamedNode>> list(const std::string& path) const override {
    std::vector<NamedNode> children = TRY(whole_->list(TRY(inside(path))));
    if (!keep_git_dir_)
      std::erase_if(children, [](const NamedNode& child) { return child.name == git_dir; });
    return children;
  }
  Result<> read(const std::string& path, const Sink& sink) const override {
    return whole_->read(TRY(inside(path)), sink);
  }

 private:
  static constexpr std::string_view git_dir = ".git";  ///< Submodules have a file of that name.

  Result<std::string> inside(const std::string& path) const {
    if (!keep_git_dir_)
      for (const std::string& piece : base::split(path, '/'))
        if (piece == git_dir)
          return base::fail(ErrorCode::NotFound, "'{}' is not part of the context",
                            base::escape_controls(path));
    if (root_.empty() || path.empty()) return root_ + path;
    return root_ + "/" + path;
  }
  const std::unique_ptr<Tree> whole_;
  const std::string root_;
  const bool keep_git_dir_;
};

/// Depth 1 first; a server may not give single commits.
Result<> update_submodules(Git& git) {
  if (!base::path_exists(git.folder() + "/.gitmodules")) return {};
  const std::vector<std::string> words = {"submodule", "--quiet", "update", "--init",
                                          "--recursive"};
  std::vector<std::string> shallow = words;
  shallow.push_back("--depth=1");
  const Result<std::string> done = git.run(shallow);
  if (!done && done.error().code() == ErrorCode::Cancelled)
    return tl::unexpected<base::Error>(done.error());
  if (!done) TRY_DURING(git.run(words), "fetch its submodules");
  return {};
}

Result<> check_out(Git& git, const base::RepositoryAddress& wanted) {
  TRY(git.run({"init", "-q"}));
  TRY(git.run({"remote", "add", "origin", "--", git.url()}));
  const std::string ref = wanted.ref.empty() ? "HEAD" : wanted.ref;
  if (ref.starts_with('-'))
    return base::fail(ErrorCode::InvalidArgument, "'{}' is no ref of a repository",
                      base::escape_controls(ref));
  if (!git.run({"fetch", "-q", "--depth=1", "--no-tags", "origin", ref})) {
    // A server may not give single commits: all of it, then.
    TRY(git.run({"fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*",
                 "+refs/tags/*:refs/tags/*"}));
    // A branch of another repository is none of this one.
    if (!git.run({"checkout", "-q", "--detach", "origin/" + ref}))
      TRY(git.run({"checkout", "-q", "--detach", ref}));
    return update_submodules(git);
  }
  TRY(git.run({"checkout", "-q", "--detach", "FETCH_HEAD"}));
  return update_submodules(git);
}

}  // namespace

Result<FetchedFile> fetch_url(const std::string& url, const std::string& checksum,
                              const FetchLimits& limits) {
  const std::string folder = fmt::format("{}/{}", limits.folder, base::random_hex(8));
  TRY(base::make_directories(folder));
  const base::UniqueFd file =
      TRY(base::open_file(folder + "/file", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW));
  Download download;
  download.fd = file.get();
  download.cancellation = &limits.cancellation;
  const Curl curl = TRY(open_curl());
  set_up(curl.get(), url, download);
  const CURLcode code = curl_easy_perform(curl.get());
  if (limits.cancellation.cancelled()) return base::fail(ErrorCode::Cancelled, "cancelled");
  if (!download.outcome)
    return tl::unexpected<base::Error>(
        std::move(download.outcome.error()).during("download " + shown(url)));
  if (code != CURLE_OK)
    return base::fail(ErrorCode::Io, "download {}: {}", shown(url), curl_easy_strerror(code));
  const std::string digest = download.hash.finish();
  if (!checksum.empty() && checksum != digest)
    return base::fail(ErrorCode::InvalidArgument, "{} has the checksum {}, not {}", shown(url),
                      digest, base::escape_controls(checksum));
  curl_off_t modified = -1;
  curl_easy_getinfo(curl.get(), CURLINFO_FILETIME_T, &modified);
  std::shared_ptr<const Tree> tree = TRY(open_folder_tree(folder));
  return FetchedFile{.name = name_in(url),
                     .tree = std::move(tree),
                     .path = "file",
                     .modified_s = std::max<int64_t>(0, modified)};
}

Result<std::shared_ptr<const Tree>> fetch_git(const std::string& address,
                                              const std::string& checksum,
                                              const FetchLimits& limits) {
  const base::RepositoryAddress wanted = base::parse_repository(address);
  const std::string folder = fmt::format("{}/{}", limits.folder, base::random_hex(8));
  TRY(base::make_directories(folder));
  Git git(folder, without_user(wanted.url), limits.cancellation);
  TRY_DURING(check_out(git, wanted), "fetch {}", shown(wanted.url));
  if (!checksum.empty()) {
    std::string commit = TRY(git.run({"rev-parse", "HEAD"}));
    while (commit.ends_with('\n')) commit.pop_back();
    if (!commit.starts_with(checksum))
      return base::fail(ErrorCode::InvalidArgument, "{} is at {}, not {}", shown(wanted.url),
                        base::escape_controls(commit), base::escape_controls(checksum));
  }
  std::unique_ptr<Tree> tree = TRY(open_folder_tree(folder));
  const std::string root = TRY_DURING(resolve_links(*tree, wanted.folder), "find '{}' in {}",
                                      base::escape_controls(wanted.folder), shown(wanted.url));
  const Node folder_node = TRY(tree->node(root));
  if (folder_node.type != NodeType::Directory)
    return base::fail(ErrorCode::InvalidArgument, "'{}' in {} is no folder",
                      base::escape_controls(wanted.folder), shown(wanted.url));
  return std::make_shared<const SubTree>(std::move(tree), root, limits.keep_git_dir);
}

}  // namespace builder
