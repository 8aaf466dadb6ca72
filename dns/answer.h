#pragma once
/// What to do with one packet from a guest: answer it from the zone, ask upstream, or ignore it.
///
/// Names of the zone never go upstream, nor do single labels, names below our domain, or reverse
/// lookups of our own network; on an internal network nothing does.

#include <string>
#include <string_view>
#include <variant>

#include "dns/wire.h"
#include "dns/zone.h"

namespace dns {

inline constexpr uint32_t answer_ttl_s = 5;

struct AnswerOptions {
  bool forward = true;  ///< false: an internal network, nothing leaves it.
  std::string domain;   ///< `test`: `db.test` means `db`. Empty: none.
  Ipv4Net subnet;       ///< Its reverse names are ours.
};

struct Reply {
  std::string bytes;
};
struct AskUpstream {
  Query query;
};
struct Ignore {};
using Outcome = std::variant<Reply, AskUpstream, Ignore>;

enum class Transport { Udp, Tcp };

/// The zone turns (rotation), otherwise nothing changes. A reply fits `transport`.
Outcome answer(std::string_view packet, Zone& zone, const AnswerOptions& options,
               Transport transport);

/// `reply` itself, or its truncated form if it does not fit the asker's UDP buffer.
std::string fit_reply(std::string reply, const Query& query, Transport transport);

/// For a query that could not be asked upstream.
std::string server_failure(const Query& query);

}  // namespace dns
