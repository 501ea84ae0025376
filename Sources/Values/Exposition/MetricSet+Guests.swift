package import Telemetry

extension MetricSet {
    /// Adds the metrics of restored guests: their numbers, and those of single guests up to a bound.
    ///
    /// - Parameters:
    ///   - guests: the guests.
    ///   - limit: the most guests of which single metrics are added.
    ///   - adopted: the guests that were taken over from an earlier handler.
    package mutating func add(guests: [LiveGuest], atMost limit: Int = 1000, adopted: Int) {
        var states: [String: Int] = [:]
        for guest in guests { states[guest.state, default: 0] += 1 }
        for (state, count) in states.sorted(by: { $0.key < $1.key }) { add(.guestCount, Double(count), state) }
        add(.guestsOmitted, Double(max(0, guests.count - limit)))
        add(.adoptedGuests, Double(adopted))
        for guest in guests.prefix(limit) { add(guest) }
    }

    private mutating func add(_ guest: LiveGuest) {
        // Names come from outside, and a label must not grow without bound.
        let labels = [
            guest.id.description, String(guest.pid), String(guest.name.prefix(128)), String(guest.socket.prefix(256)),
        ]
        add(.guestState, 1, labels + [guest.state, String(guest.server.prefix(256)), guest.policy])
        add(.guestPages, Double(guest.demand), labels + ["demand"])
        add(.guestPages, Double(guest.ahead), labels + ["ahead"])
        add(.guestMemoryPages, Double(guest.total), labels)
        // The figures lie in memory that workers write, at different moments.
        let resident = guest.total > 0 ? min(1, Double(guest.resident) / Double(guest.total)) : 0
        add(.guestResidentRatio, resident, labels)
        add(.guestWaitingFaults, Double(guest.waiting), labels)
        add(.guestOldestFault, guest.oldest / 1e6, labels)
        if let countdown = guest.policyCountdown { add(.guestPolicy, countdown, labels) }
        add(
            .guestService,
            quantiles: [(0.5, guest.p50 / 1e6), (0.99, guest.p99 / 1e6)],
            count: guest.served,
            seconds: guest.serviceTotal / 1e6,
            labels
        )
        add(.workerRestarts, Double(guest.restarts), labels)
        if let rate = guest.fill { add(.guestFillRate, rate == 0 ? .infinity : Double(rate), labels) }
    }
}
