import Connections
import Guest
import LinuxSystem
import PageFetcher
import PageProtocol
import Telemetry

/// What arrives of one workload: its memory, its device states, and in the end the workload itself.
struct ArrivingWorkload: Sendable {
    /// How far the preparation of the workload has got.
    enum Preparation: Sendable {
        /// The landing prepares memory and devices.
        ///
        /// The link for which they were requested may have broken since.
        case underWay
        /// The workload waits for the lanes, and for the measurement of the floor.
        case prepared(any Workload)
        case attached(any Workload)
        /// The workload was refused or freed.
        case ended
    }

    /// Where the workload's memory is.
    enum Memory: Sendable {
        /// The memory is not here yet; the lanes may be.
        case awaited(Lanes?)
        /// The memory waits for the lanes.
        case here(Handover<WaitingMemory>)
        /// The fetcher fills the memory, or has filled it and stopped.
        case served(PageFetcher, isStopped: Bool)
        /// The memory was freed after this much had arrived; the recorders hold the waits until then.
        case freed(PageFetcher.Progress, DestinationSession.Recorders)
    }

    let announcement: GuestAnnouncement
    let table: RegionTable
    var preparation = Preparation.underWay
    var memory = Memory.awaited(nil)
    var states = ArrivingStates()
    /// The proof for the first start; later starts need none.
    var loaded: Handover<DevicesLoaded>?
    var floor = Report.Floor()
    /// The faults of the device loads: before the workload runs, nothing else touches the memory.
    var loadFaults: (count: UInt64, nanoseconds: UInt64) = (0, 0)
    /// Whether PONG was sent: the source may then send RUN.
    var isPongSent = false
    /// Whether the workload was paused at its source and has arrived paused.
    var isPaused = false
    /// When the workload's first operation after its arrival ended; nil until that is known.
    var firstOperation: UInt64?
    /// Samples when the memory arrives, since the latest permission to start; nil before, and once the memory is freed.
    var sampler: ArrivalSampler?
    /// The collapse of the workload's memory into transparent huge pages.
    var collapsing: TransparentHugePages?

    /// Begins an arrival.
    ///
    /// - Throws: `ProtocolError` if the announced memory exceeds the protocol's bounds.
    init(_ announcement: GuestAnnouncement) throws(ProtocolError) {
        self.announcement = announcement
        table = try RegionTable(announcement.regions)
    }

    /// Whether the workload is still being prepared.
    var isPreparing: Bool {
        switch preparation {
        case .underWay, .prepared: true
        case .attached, .ended: false
        }
    }

    /// The workload, once it is prepared and the lanes are connected.
    var workload: (any Workload)? {
        if case .attached(let workload) = preparation { return workload }
        return nil
    }

    /// The fetcher, until the memory is freed.
    var fetcher: PageFetcher? {
        if case .served(let fetcher, _) = memory { return fetcher }
        return nil
    }

    /// What a thread waits before its fault is read and after its page was placed, in nanoseconds: the median time of a
    /// local fault.
    var deliveryNanoseconds: UInt64 { UInt64(max(0, floor.localFaultP50) * 1000) }

    /// How long a thread has stalled, in nanoseconds.
    func stallNanoseconds(_ thread: PageFetcher.ThreadStall) -> UInt64 {
        thread.nanoseconds + thread.count * deliveryNanoseconds
    }

    /// How much of the memory has arrived.
    var progress: PageFetcher.Progress {
        switch memory {
        case .awaited, .here: PageFetcher.Progress()
        case .served(let fetcher, _): fetcher.progress
        case .freed(let progress, _): progress
        }
    }

    /// The recorders of the waits so far, also after the memory is freed.
    var recorders: DestinationSession.Recorders {
        if case .freed(_, let recorders) = memory { return recorders }
        var recorders = DestinationSession.Recorders(service: fetcher?.service ?? [])
        if let own = workload?.stalls, !own.isEmpty {
            (recorders.stalls, recorders.stallOrigin) = (own, .accesses)
        } else if let fetcher, !fetcher.threadStalls.isEmpty {
            (recorders.stalls, recorders.stallOrigin) = ([fetcher.stalls], .faults)
            recorders.delivery = deliveryNanoseconds
        }
        return recorders
    }

    /// Ends the lanes, whether they serve pages or wait for the memory.
    mutating func loseLanes() {
        fetcher?.hangUp()
        if case .awaited = memory { memory = .awaited(nil) }
    }

    /// Gives the memory up.
    ///
    /// - Returns: the fetcher to stop, with the workload that must live until then; nil if there is none.
    mutating func free() -> (fetcher: PageFetcher, workload: (any Workload)?)? {
        let stopping = fetcher.map { ($0, workload) }
        memory = .freed(progress, recorders)
        (sampler, collapsing, loaded, states) = (nil, nil, nil, ArrivingStates())
        switch preparation {
        // The machine still has to hear that the preparation has ended.
        case .underWay: break
        case .prepared, .attached, .ended: preparation = .ended
        }
        return stopping
    }
}
