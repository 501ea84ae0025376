import LinuxSystem
package import PageFetcher
import Synchronization
package import Telemetry

/// How many guests are served at a time, and whose.
package struct GuestLimits: Sendable, Hashable {
    /// The most guests of all users together.
    package var total: Int
    /// The most guests of one user.
    package var perUser: Int
    /// The users whose processes are served; empty for every user who can open the socket.
    package var users: Set<UInt32>

    /// The usual limits.
    package init(total: Int = 1024, perUser: Int = 256, users: Set<UInt32> = []) {
        self.total = total
        self.perUser = perUser
        self.users = users
    }
}

/// Why a hand-off is not served, although the hand-off itself is right.
package struct AdmissionRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The reason and the remedy, in one line.
    package let description: String
    /// Whether the memory behind the userfaultfd is served already, so that the sender waits for nothing.
    let isServed: Bool
}

/// The guests that are served now: each userfaultfd once, one of each process, and no more than the limits allow.
package final class GuestRoster: Sendable {
    /// A guest on the roster.
    private final class Member: Sendable {
        /// A copy of the guest's userfaultfd, whose number stays valid for as long as the member is compared.
        let userfaultfd: Userfaultfd
        let process: PeerProcess.Identity?
        let user: UInt32?
        let name: String
        let claim: PoolClaim?
        /// What is known of the guest; nil until its session has begun.
        let view = Mutex<GuestView?>(nil)

        init(
            _ userfaultfd: consuming Userfaultfd,
            of process: PeerProcess.Identity?,
            _ user: UInt32?,
            name: String,
            _ claim: PoolClaim?
        ) {
            self.claim = claim
            self.userfaultfd = userfaultfd
            self.process = process
            self.user = user
            self.name = name
        }
    }

    private struct Members {
        var all: [Int: Member] = [:]
        var last = 0
        /// The processes whose guests are about to be adopted.
        var orphans: Set<Int32> = []
        /// The guests that were adopted so far.
        var adopted = 0
    }

    private let limits: GuestLimits
    private let members = Mutex(Members())

    /// Makes a roster without guests.
    package init(_ limits: GuestLimits = GuestLimits()) {
        self.limits = limits
    }

    /// Returns once no thread holds the roster.
    func check() { members.withLock { _ in } }

    /// Puts a guest on the roster.
    ///
    /// - Parameters:
    ///   - process: the guest's process.
    ///   - userfaultfd: the userfaultfd of the guest's memory, of which the roster keeps a copy.
    ///   - address: where the guest was handed over.
    ///   - claim: the huge pages that the guest may take.
    /// - Returns: the number under which ``remove(_:)`` finds the guest.
    /// - Throws: ``AdmissionRefusal`` if the guest must not be served, `SystemError` if its userfaultfd cannot be
    ///   copied.
    func add(
        _ process: borrowing PeerProcess,
        _ userfaultfd: borrowing Userfaultfd,
        at address: SocketAddress,
        _ claim: PoolClaim?
    ) throws -> Int {
        let who = process.id > 0 ? "process \(process.id)" : "a process of another PID namespace"
        let member = Member(
            try userfaultfd.duplicate(),
            of: process.identity,
            process.user,
            name: "\(who) at \(address)",
            claim
        )
        waitForEarlier(of: member, process.id)
        var earlier: Pool?
        // A guest that may still fit after the last look waits for its pages if it does not.
        for look in 1...GuestRoster.mostLooks {
            // Compared and added under one lock: of two hand-offs of the same userfaultfd at once, one is refused.
            let (number, pool) = try members.withLock { members throws(AdmissionRefusal) in
                try check(member, among: members.all.values)
                let pool = Pool(for: member, beside: members.all.values)
                guard pool.isEnough || look == GuestRoster.mostLooks else { return (0, pool) }
                members.last += 1
                members.all[members.last] = member
                return (members.last, pool)
            }
            if number > 0 { return number }
            if pool == earlier { throw refusal(pool.shortage) }
            earlier = pool
            MonotonicClock.sleep(nanoseconds: GuestRoster.pause)
        }
        preconditionFailure("the last look adds the guest or throws")
    }

    /// How long a process's next guest waits for the end of the one before, and for the adoption of one.
    private static let (endPatience, adoptionPatience): (Duration, Duration) = (.seconds(1), .seconds(10))
    /// Nanoseconds between two looks whether the earlier guest has left.
    private static let glance: UInt64 = 2_000_000

    /// Waits for the end of another guest of the same process: the process may know of the end before this one does.
    private func waitForEarlier(of member: Member, _ id: Int32) {
        let begin = MonotonicClock.now()
        while true {
            let (isOrphan, isEarlier) = members.withLock { members in
                let earlier = members.all.values.contains {
                    $0.process != nil && $0.process == member.process
                        && member.userfaultfd.isSame(as: $0.userfaultfd) != true
                }
                return (members.orphans.contains(id), earlier)
            }
            let patience = isOrphan ? GuestRoster.adoptionPatience : GuestRoster.endPatience
            guard isOrphan || isEarlier, MonotonicClock.time(since: begin) < patience else { return }
            MonotonicClock.sleep(nanoseconds: GuestRoster.glance)
        }
    }

    /// Notes processes whose guests are about to be adopted; call this before any guest is added.
    func expect(_ processes: [Int32]) { members.withLock { $0.orphans = Set(processes) } }

    /// Notes that the guest of a process was adopted, or will not be.
    func settle(_ process: Int32) { members.withLock { _ = $0.orphans.remove(process) } }

    /// How often the pool of huge pages is looked at before a guest is added, and nanoseconds between two looks.
    ///
    /// A page that is being placed for another guest is no longer free, and counts as lacking all the same. The pool is
    /// believed once it has not changed between two looks.
    private static let (mostLooks, pause): (Int, UInt64) = (20, 50_000_000)

    /// The huge pages that are free, that a guest lacks, and that the other guests may still take.
    private struct Pool: Equatable {
        let available: Int
        let lacking: Int
        let promised: Int

        init(for member: Member, beside others: some Collection<Member>) {
            lacking = member.claim?.rest ?? 0
            (available, promised) =
                lacking == 0 ? (0, 0) : (HugePagePool.available, others.reduce(0) { $0 + ($1.claim?.rest ?? 0) })
        }

        var isEnough: Bool { lacking == 0 || lacking + promised <= available }

        var shortage: String {
            "its memory lacks \(lacking) huge pages of 2 MiB, and \(available) are free, of which the other guests may "
                + "take \(promised); \(HugePagePool.remedy(adding: lacking + promised - available)), and restore the "
                + "guest again"
        }
    }

    /// Puts a guest of an earlier handler on the roster, whatever the limits say.
    ///
    /// - Parameters:
    ///   - process: the process that has handed over the memory; nil if it has ended.
    ///   - user: the user of that process, as the earlier handler has noted it; nil if it has not.
    ///   - userfaultfd: the userfaultfd of the guest's memory, of which the roster keeps a copy.
    ///   - name: the guest's name.
    ///   - claim: the huge pages that the guest may take.
    /// - Returns: the number under which ``remove(_:)`` finds the guest.
    /// - Throws: `SystemError` if the guest's userfaultfd cannot be copied.
    func adopt(
        _ process: borrowing PeerProcess?,
        of user: UInt32?,
        _ userfaultfd: borrowing Userfaultfd,
        as name: String,
        _ claim: PoolClaim?
    ) throws(SystemError) -> Int {
        let (identity, owner): (PeerProcess.Identity?, UInt32?) =
            switch process {
            case .some(let process): (process.identity, process.user)
            case .none: (nil, nil)
            }
        let member = Member(try userfaultfd.duplicate(), of: identity, user ?? owner, name: name, claim)
        return members.withLock { members in
            members.last += 1
            members.adopted += 1
            members.all[members.last] = member
            return members.last
        }
    }

    /// Shows operators what is known of a guest.
    func show(_ number: Int, _ view: GuestView) {
        members.withLock { $0.all[number] }?.view.withLock { $0 = view }
    }

    private var views: [(id: LiveGuest.ID, view: GuestView)] {
        let all = members.withLock { $0.all.sorted { $0.key < $1.key } }
        return all.compactMap { number, member in
            // All processes of other PID namespaces have the number 0. Of each other process, one guest is served.
            member.view.withLock { view in
                view.map { ($0.task.process > 0 ? .process($0.task.process) : .outside(number), $0) }
            }
        }
    }

    /// The guests that are served, in the order in which they came.
    package var guests: [LiveGuest] { views.map { $0.view.live(as: $0.id) } }

    /// The guests of earlier handlers that were taken over so far.
    package var adopted: Int { members.withLock(\.adopted) }

    /// Orders to fetch the pages that a guest does not touch, at most this fast, so that it needs its server no more.
    ///
    /// - Parameters:
    ///   - guest: the guest's id, as in ``guests``.
    ///   - rate: how fast the pages are fetched.
    /// - Throws: ``FillRefused`` if no such guest is served, or if its touches are being recorded.
    package func fill(_ guest: LiveGuest.ID, at rate: FillRate) throws(FillRefused) {
        guard let view = views.first(where: { $0.id == guest })?.view else {
            throw FillRefused(description: "no guest \(guest) is served", isUnknown: true)
        }
        try view.order(rate)
    }

    /// Takes a guest off the roster, once the guest is no longer served.
    package func remove(_ number: Int) {
        let removed = members.withLock { $0.all.removeValue(forKey: number) }
        // Closed without the lock.
        withExtendedLifetime(removed) {}
    }

    private func check(_ member: Member, among others: some Collection<Member>) throws(AdmissionRefusal) {
        if let user = member.user, !limits.users.isEmpty, !limits.users.contains(user) {
            throw refusal("user \(user) is none of those that --allow-uid names; add --allow-uid \(user)")
        }
        if let same = others.first(where: { member.userfaultfd.isSame(as: $0.userfaultfd) == true }) {
            throw AdmissionRefusal(
                description: "its userfaultfd is that of \(same.name), which is served already; hand over each "
                    + "userfaultfd once",
                isServed: true
            )
        }
        if let process = member.process, let earlier = others.first(where: { $0.process == process }) {
            throw refusal(
                "another userfaultfd of the same process, \(earlier.name), is still served; hand over one userfaultfd "
                    + "per process"
            )
        }
        guard others.count < limits.total else {
            throw refusal(
                "\(others.count) guests are served, as many as --max-guests allows; raise --max-guests, or end guests"
            )
        }
        guard let user = member.user else { return }
        let own = others.count { $0.user == user }
        guard own < limits.perUser else {
            throw refusal(
                "user \(user) has \(own) guests, as many as --max-guests-per-uid allows; raise --max-guests-per-uid, or "
                    + "end guests"
            )
        }
    }

    private func refusal(_ description: String) -> AdmissionRefusal {
        AdmissionRefusal(description: description, isServed: false)
    }
}
